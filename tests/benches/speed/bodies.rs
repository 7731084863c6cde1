//! What is sent: batches as JSON and as columns, requests for predictions.

/// A POST of `body`.
pub fn post(path: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {media_type}\r\n");
    let mut request = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

/// A batch of `count` executions of `tasks` tasks as JSON.
pub fn json_batch(number: u64, count: u64, tasks: u64) -> Vec<u8> {
    let records: Vec<String> = (0..count)
        .map(|r| {
            let (task, exec_ms) = (r % tasks, 100 + (number.wrapping_add(r)) % 37);
            format!(
                r#"{{"kind":"task","task":"t{task}","memory_mb":1769,"input_bytes":50,"exec_ms":{exec_ms}}}"#
            )
        })
        .collect();
    format!(r#"{{"batch_id":"bench-{number}","records":[{}]}}"#, records.join(",")).into_bytes()
}

/// `count` questions of all kinds in turns.
pub fn questions(count: usize) -> String {
    let kinds = [
        r#"{"kind":"execution_time","task":"t1","input_bytes":50,"memory_mb":1769}"#,
        r#"{"kind":"output_size","task":"t1","input_bytes":50}"#,
        r#"{"kind":"transfer_time","direction":"download","bytes":50000,"memory_mb":1769}"#,
        r#"{"kind":"startup_time","state":"cold","memory_mb":1769}"#,
    ];
    let queries: Vec<&str> = (0..count).map(|n| kinds[n % kinds.len()]).collect();
    format!(r#"{{"sla":["median","p95"],"queries":[{}]}}"#, queries.join(","))
}

/// `count` questions for execution times.
pub fn execution_times(count: usize) -> String {
    let queries: Vec<String> = (0..count)
        .map(|n| {
            let (task, input_bytes) = (n % 4, 40 + n % 20);
            format!(
                r#"{{"kind":"execution_time","task":"t{task}","input_bytes":{input_bytes},"memory_mb":1769}}"#
            )
        })
        .collect();
    format!(r#"{{"sla":["median","p95"],"queries":[{}]}}"#, queries.join(","))
}

/// The same batch as columns.
pub fn column_batch(number: u64, count: u64, tasks: u64) -> Vec<u8> {
    let names: Vec<String> = (0..tasks).map(|task| format!(r#""t{task}""#)).collect();
    let columns = r#"["task","memory_mb","input_bytes","exec_ms"]"#;
    let group = format!(r#"{{"kind":"task","records":{count},"columns":{columns}}}"#);
    let head = format!(r#"{{"batch_id":"bench-{number}","names":[{}],"groups":[{group}]}}"#, names.join(","));
    let mut body = b"FSC1".to_vec();
    body.extend((head.len() as u32).to_le_bytes());
    body.extend(head.as_bytes());
    (0..count).for_each(|r| body.extend(((r % tasks) as u32).to_le_bytes()));
    (0..count).for_each(|_| body.extend(1769_u32.to_le_bytes()));
    (0..count).for_each(|_| body.extend(50_u64.to_le_bytes()));
    (0..count).for_each(|r| body.extend(((100 + number.wrapping_add(r) % 37) as f64).to_le_bytes()));
    body
}
