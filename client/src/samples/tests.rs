//! What is read from a file of measurements, and what is refused.

use foresail_schemas::metric::{Record, TaskRecord};
use jiff::Timestamp;

use super::read::{LineOrder, NameRule, ReadSettings, Refusal, Sample, SampleFileError, SampleReader};

fn settings() -> ReadSettings {
    ReadSettings {
        workflow: None,
        memory_mb: 1769,
        start: Timestamp::from_second(1_000).unwrap(),
        order: LineOrder::Measured,
        names: NameRule::Refuse,
    }
}

fn read(text: &str, settings: ReadSettings) -> Result<(Vec<Sample>, Vec<Refusal>), SampleFileError> {
    let mut reader = SampleReader::new(text.as_bytes(), settings)?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while let Some(line) = reader.next_line()? {
        match line {
            Ok(sample) => good.push(sample),
            Err(refusal) => bad.push(refusal),
        }
    }
    Ok((good, bad))
}

fn task(sample: &Sample) -> &TaskRecord {
    match &sample.record {
        Record::Task(record) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blanks_are_not_known_and_columns_may_stand_in_any_order() {
    let text = "exec_ms,note,task,workflow,memory_mb,vcpu,input_bytes,output_bytes\n\
                12.5,x,a,w,,,,\n\n7,y,b,v,512.0,0.25,1000,9\n";
    let (good, bad) = read(text, settings()).unwrap();
    assert_eq!((good.len(), bad), (2, Vec::new()));
    let (first, second) = (task(&good[0]), task(&good[1]));
    assert_eq!((first.memory_mb, first.vcpu, first.input_bytes, first.output_bytes), (1769, None, 0, None));
    assert_eq!((second.memory_mb, second.vcpu), (512, Some(0.25)));
    assert_eq!((second.input_bytes, second.output_bytes, second.exec_ms), (1000, Some(9), 7.0));
    assert_eq!((good[1].workflow.as_str(), good[1].line), ("v", 4));
    assert_eq!(first.at, Some(settings().start));
    assert!(second.at > first.at, "the order of the lines is the order of the times");
}

#[test]
fn every_bad_line_is_told_with_its_number_and_costs_nobody_else() {
    let cases = [
        ("w,a,1,1,x", "exec_ms `x`"),
        ("w,a,1,1,", "exec_ms is blank"),
        ("w,a,1,1,-3", "exec_ms `-3`"),
        ("w,a,1,1,nan", "exec_ms `nan`"),
        ("w,,1,1,5", "task is blank"),
        (",a,1,1,5", "workflow is blank"),
        ("w,a b,1,1,5", "`a b`"),
        ("w,a,0,1,5", "memory_mb `0`"),
        ("w,a,99999999999,1,5", "memory_mb"),
        ("w,a,1,many,5", "input_bytes `many`"),
        ("w,a,1,1", "has 4 fields"),
        ("w,a,1,1,5,6", "has 6 fields"),
    ];
    for (line, word) in cases {
        let text = format!("workflow,task,memory_mb,input_bytes,exec_ms\nw,a,1,1,5\n{line}\nw,a,1,1,5\n");
        let (good, bad) = read(&text, settings()).unwrap();
        assert_eq!((good.len(), bad.len()), (2, 1), "{line}");
        assert_eq!(bad[0].line, 3, "{line}");
        assert!(bad[0].reason.contains(word), "`{line}` is told as `{}`", bad[0].reason);
    }
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    let text = "workflow,task,note,exec_ms\nw,a,\"two\nlines\",x\n\n\nw,a,,y\nw,a,,z";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let (good, bad) = read(&text, settings()).unwrap();
        let lines: Vec<u64> = bad.iter().map(|refusal| refusal.line).collect();
        assert_eq!((good.len(), lines), (0, vec![2, 3, 6, 7]), "{text:?}");
    }
}

#[test]
fn a_header_without_what_is_needed_is_refused_with_what_it_has() {
    for (text, word) in [
        ("", "empty"),
        ("\n \n", "empty"),
        ("workflow,task,time\n", "`exec_ms`"),
        ("task,exec_ms\na,1\n", "`workflow`"),
        ("workflow,task,exec_ms,task\n", "twice"),
    ] {
        let error = read(text, settings()).unwrap_err();
        assert!(error.to_string().contains(word), "{text:?}: {error}");
    }
    let with = ReadSettings { workflow: Some("w".parse().unwrap()), ..settings() };
    assert_eq!(read("task,exec_ms\na,1\n", with).unwrap().0.len(), 1);
}

#[test]
fn names_that_are_not_allowed_are_mapped_where_that_is_asked_for() {
    let with = ReadSettings { names: NameRule::Map, ..settings() };
    let (good, bad) = read("workflow,task,exec_ms\na b/c,-x.y é,1\n", with).unwrap();
    assert_eq!(bad, Vec::new());
    assert_eq!((good[0].workflow.as_str(), task(&good[0]).task.as_str()), ("a_b_c", "_x.y__"));
}

#[test]
fn records_of_an_export_are_read_as_they_were_written() {
    let record = r#"{"kind":"task","task":"a","memory_mb":512,"exec_ms":3.5,"at":"2026-01-05T10:00:00Z"}"#;
    let start = r#"{"kind":"startup","state":"cold","time_ms":640.2,"memory_mb":1769,"workflow":"own"}"#;
    let text = format!("{record}\n\n{{oops\n{start}\r\n17\n");
    let with = ReadSettings { workflow: Some("w".parse().unwrap()), ..settings() };
    let (good, bad) = read(&text, with).unwrap();
    assert_eq!(good[0].record, serde_json::from_str(record).unwrap());
    assert_eq!(good.iter().map(|s| s.line).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(bad.iter().map(|r| r.line).collect::<Vec<_>>(), [3, 5]);
    assert!(matches!(&good[1].record, Record::Startup(r) if r.at.is_some()));
    let (own, unnamed) = read(&text, settings()).unwrap();
    assert_eq!(own.iter().map(|s| s.workflow.as_str()).collect::<Vec<_>>(), ["own"]);
    assert!(unnamed[0].reason.contains("workflow"), "{unnamed:?}");
}

#[test]
fn a_record_with_a_number_out_of_range_is_refused_with_its_field() {
    let text = r#"{"workflow":"w","kind":"task","task":"a","memory_mb":1,"exec_ms":-5}"#;
    let (_, bad) = read(text, settings()).unwrap();
    assert_eq!(bad[0].reason, "exec_ms `-5` must be finite and at least 0");
}

#[test]
fn shuffled_lines_have_times_in_another_order_the_same_every_time() {
    let text = format!("workflow,task,exec_ms\n{}", "w,a,1\n".repeat(200));
    let with = ReadSettings { order: LineOrder::Shuffled, ..settings() };
    let times =
        || -> Vec<_> { read(&text, with.clone()).unwrap().0.iter().map(|sample| task(sample).at).collect() };
    let first = times();
    assert_eq!(first, times());
    let later = first.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((60..140).contains(&later), "{later} of 199 pairs are in order");
    assert!(first.iter().all(|at| *at >= Some(settings().start)));
}

#[test]
fn a_stray_quote_costs_its_own_line_only() {
    let text = "workflow,task,note,exec_ms\nw,a, x ,1\nw,a,\"open,1\nw,a,\"a, \"\"b\"\"\",2\n  \n\
                w, a ,in\"ch,soon\n";
    let (good, bad) = read(text, settings()).unwrap();
    assert_eq!(good.iter().map(|sample| sample.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(bad.iter().map(|refusal| refusal.line).collect::<Vec<_>>(), [3, 6]);
    for word in ["`\"`", "field 3", "`note`", "line"] {
        assert!(bad[0].reason.contains(word), "`{word}` is missing: {}", bad[0].reason);
    }
    assert!(bad[1].reason.contains("exec_ms `soon`"), "{bad:?}");
}

#[test]
fn a_line_without_an_end_is_refused_and_costs_no_memory() {
    use std::io::{BufReader, Read};

    let long = || std::io::repeat(b'x').take(5 << 20);
    for (head, line, number) in [
        ("workflow,task,exec_ms\n", "w,a,1", 3),
        ("", r#"{"kind":"task","task":"a","memory_mb":512,"exec_ms":3.5,"workflow":"w"}"#, 2),
    ] {
        let (before, behind) = (format!("{head}{line}\n"), format!("\n{line}\n"));
        let file = before.as_bytes().chain(&b"\""[..]).chain(long()).chain(behind.as_bytes());
        let mut reader = SampleReader::new(BufReader::new(file), settings()).unwrap();
        assert!(reader.next_line().unwrap().unwrap().is_ok());
        let refusal = reader.next_line().unwrap().unwrap().unwrap_err();
        assert_eq!(refusal.line, number);
        assert!(refusal.reason.contains("longer than 1048576 bytes"), "{refusal:?}");
        assert!(reader.next_line().unwrap().unwrap().is_ok());
        assert!(reader.next_line().unwrap().is_none());
    }
    let error = SampleReader::new(BufReader::new(long()), settings()).err().unwrap();
    assert!(error.to_string().contains("line 1 is longer"), "{error}");
}

#[test]
fn a_line_is_known_again_by_what_it_says_whatever_the_settings_are() {
    let hashes = |text: &str, settings| -> Vec<_> {
        read(text, settings).unwrap().0.iter().map(|sample| sample.hash).collect()
    };
    let text = "workflow,task,exec_ms\nw,a,1\nw,a,2\nw,a,1\n";
    let first = hashes(text, settings());
    assert!(first[0] == first[2] && first[0] != first[1]);
    let later = ReadSettings { start: Timestamp::from_second(9_000).unwrap(), memory_mb: 9, ..settings() };
    assert_eq!(hashes(text, later), first);
    assert_ne!(hashes("workflow,task,exec_ms,vcpu\nw,a,1,\n", settings())[0], first[0]);
}
