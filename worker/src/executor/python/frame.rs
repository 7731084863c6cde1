//! What executor and runner tell each other: a call, and its answer. `client/python/foresail/_runner.py` is
//! the other side.
//!
//! A frame is its length (u32) and a body; numbers are little-endian. A body is a head of fixed size, texts
//! and pickles one after the other, a table of objects (kind, descriptor, offset, length), and the small
//! objects. Large ones are in files whose descriptors come along.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use foresail_schemas::code::PythonCall;
use foresail_schemas::id::ObjectName;
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::Input;

use super::link::Link;
use super::socket::DESCRIPTORS_MAX;
use crate::data::kept::{Object, Span};
use crate::data::mapped::{self, Append, SHARED_BYTES_MIN, memory_file};
use crate::executor::Call;
use crate::registry::TaskError;

/// Inputs of so many bytes are passed as descriptors.
pub(super) const APART_BYTES_MIN: usize = 64 << 10;
/// Largest frame of a runner: names and small outputs of the widest task stay far below it.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;
/// Beginning of every input in a frame and of every buffer in an input.
const ALIGNMENT: usize = 64;
/// Beginning of every input in a file that was made for it.
const PAGE: usize = 4096;
/// Files of inputs passed as they are; what comes past them is copied into one.
const FILES_MAX: usize = DESCRIPTORS_MAX - 1;

const CALL: u8 = 1;
const LOAD: u8 = 2;
const HAS_ARGS: u8 = 1;
const HAS_DECISION: u8 = 2;
const ABSENT: u8 = 0;
const INLINE: u8 = 1;
const MAPPED: u8 = 2;
const JSON_VALUE: u8 = 3;
const KEPT: u8 = 4;
const PLACE_BYTES: usize = 24;
const SPAN_BYTES: usize = 16;
const ANSWER_BYTES: usize = 32;

/// The SHA-256 of a function.
pub(super) type Digest = [u8; 32];

/// A call, or the wish that a function be loaded.
#[derive(Debug)]
pub(super) struct Request {
    kind: u8,
    flags: u8,
    /// The function.
    pub digest: Digest,
    args: Vec<u8>,
    names: String,
    context: String,
    result_bytes_max: u64,
    keep_bytes_max: u64,
    inputs: Vec<Place>,
    files: Vec<Arc<File>>,
}

/// Where an input is.
#[derive(Debug)]
enum Place {
    /// The task that would have written it is skipped.
    Absent,
    Inline(u8, Bytes),
    /// In the process of the runner, under this number.
    Kept {
        number: u64,
        bytes: u64,
    },
    File {
        index: u32,
        offset: u64,
        bytes: u64,
    },
}

impl Request {
    /// A call, for the runner of `link`; of the result it may keep so many bytes.
    pub fn call(
        call: &Call,
        python: &PythonCall,
        result_bytes_max: u64,
        link: &Arc<Link>,
        keep_bytes_max: u64,
    ) -> Result<Self, TaskError> {
        let spec = call.spec();
        let args = match &python.args {
            Some(text) => {
                BASE64.decode(text).map_err(|e| refused(format!("the arguments are not base64: {e}")))?
            }
            None => Vec::new(),
        };
        let mut flags = if python.args.is_some() { HAS_ARGS } else { 0 };
        let mut names: Vec<ObjectName> = Vec::new();
        if let Some(decision) = &spec.decision {
            flags |= HAS_DECISION;
            names.push(decision.clone());
        }
        // An only output needs no name.
        if spec.decision.is_some() || spec.outputs.len() > 1 {
            names.extend(spec.output_names());
        }
        let (inputs, files) = places(call, link).map_err(|e| {
            let detail = format!("the inputs cannot be handed to the Python process: {e}; is memory short?");
            TaskError::of(FailureKind::InputUnavailable, detail)
        })?;
        let version = python.python.as_deref().unwrap_or_default();
        // A directory whose name is no text is none for Python; outputs go into memory then.
        let dir = call.outputs_dir.as_deref().and_then(Path::to_str).unwrap_or_default();
        Ok(Self {
            kind: CALL,
            flags,
            digest: digest(python)?,
            args,
            names: names.iter().map(ObjectName::as_str).collect::<Vec<_>>().join("\0"),
            context: [call.run.as_str(), spec.id.as_str(), &call.attempt.to_string(), version, dir]
                .join("\0"),
            result_bytes_max,
            keep_bytes_max,
            inputs,
            files,
        })
    }

    /// The wish that the function of `python` be loaded before it is called.
    pub fn load(python: &PythonCall) -> Result<Self, TaskError> {
        let version = python.python.as_deref().unwrap_or_default();
        Ok(Self {
            kind: LOAD,
            flags: 0,
            digest: digest(python)?,
            args: Vec::new(),
            names: String::new(),
            context: format!("\0\0\0{version}\0"),
            result_bytes_max: 0,
            keep_bytes_max: 0,
            inputs: Vec::new(),
            files: Vec::new(),
        })
    }

    /// The descriptors that go along.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.files.iter().map(|file| file.as_raw_fd()).collect()
    }

    /// Writes the frame; `code` where the runner does not have it.
    pub fn write(&self, code: &[u8], frame: &mut Vec<u8>) -> Result<(), TaskError> {
        frame.clear();
        frame.extend([0; 4]);
        frame.extend([self.kind, self.flags, 0, 0]);
        let texts = [code, &self.args, self.names.as_bytes(), self.context.as_bytes()];
        for length in [self.inputs.len()].into_iter().chain(texts.map(<[u8]>::len)) {
            frame.extend(u32::try_from(length).map_err(|_| too_long(length))?.to_le_bytes());
        }
        frame.extend(self.result_bytes_max.to_le_bytes());
        frame.extend(self.keep_bytes_max.to_le_bytes());
        frame.extend(self.digest);
        texts.into_iter().for_each(|text| frame.extend_from_slice(text));
        let mut at = align(frame.len() - 4 + self.inputs.len() * PLACE_BYTES);
        for place in &self.inputs {
            let (kind, index, offset, bytes) = match place {
                Place::Absent => (ABSENT, 0, 0, 0),
                Place::Inline(kind, content) => (*kind, 0, at as u64, content.len() as u64),
                Place::Kept { number, bytes } => (KEPT, 0, *number, *bytes),
                Place::File { index, offset, bytes } => (MAPPED, *index, *offset, *bytes),
            };
            frame.extend([kind, 0, 0, 0]);
            frame.extend(index.to_le_bytes());
            frame.extend(offset.to_le_bytes());
            frame.extend(bytes.to_le_bytes());
            if let Place::Inline(_, content) = place {
                at = align(at + content.len());
            }
        }
        for place in &self.inputs {
            if let Place::Inline(_, content) = place {
                frame.resize(4 + align(frame.len() - 4), 0);
                frame.extend_from_slice(content);
            }
        }
        let length = frame.len() - 4;
        frame[..4].copy_from_slice(&u32::try_from(length).map_err(|_| too_long(length))?.to_le_bytes());
        Ok(())
    }
}

/// Where the inputs of a call are, and the files that go along.
fn places(call: &Call, link: &Arc<Link>) -> io::Result<(Vec<Place>, Vec<Arc<File>>)> {
    let mut files = Vec::new();
    let mut places = Vec::with_capacity(call.inputs.len());
    let mut loose: Vec<(usize, Bytes)> = Vec::new();
    for (input, object) in call.spec().inputs.iter().zip(&call.inputs) {
        let Some(object) = object else {
            places.push(Place::Absent);
            continue;
        };
        if let Object::Kept(kept) = object
            && let Some(number) = kept.number_in(link)
        {
            places.push(Place::Kept { number, bytes: object.len() });
            continue;
        }
        let content = object.bytes()?;
        let kind = if matches!(input, Input::Value { .. }) { JSON_VALUE } else { INLINE };
        if kind == JSON_VALUE || content.len() < APART_BYTES_MIN {
            places.push(Place::Inline(kind, content));
            continue;
        }
        let bytes = content.len() as u64;
        let found = if files.len() < FILES_MAX { mapped::file_of(&content) } else { None };
        let (index, offset) = match found {
            Some((file, offset)) => {
                files.push(file);
                (files.len() as u32 - 1, offset)
            }
            None => {
                loose.push((places.len(), content));
                (0, 0)
            }
        };
        places.push(Place::File { index, offset, bytes });
    }
    if !loose.is_empty() {
        files.push(Arc::new(together(loose, files.len() as u32, &mut places)?));
    }
    Ok((places, files))
}

/// Writes what lies in no file into one, which is that of this number.
fn together(loose: Vec<(usize, Bytes)>, index: u32, places: &mut [Place]) -> io::Result<File> {
    let mut file = memory_file(Append::Nowhere)?;
    let mut at = 0_usize;
    for (number, content) in loose {
        let lead = at.div_ceil(PAGE) * PAGE - at;
        file.write_all(&[0; PAGE][..lead])?;
        file.write_all(&content)?;
        places[number] = Place::File { index, offset: (at + lead) as u64, bytes: content.len() as u64 };
        at += lead + content.len();
    }
    Ok(file)
}

/// What a runner answers.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// It is ready; JSON about it.
    Hello(String),
    /// The call, or the loading, has ended well.
    Done { outputs: Vec<Output>, exec_ms: f64, init_ms: f64 },
    /// It has failed.
    Failed { category: u8, text: String, exception: Vec<u8> },
    /// The function is not there.
    NeedCode,
}

/// An output as a runner tells of it.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Its bytes.
    Here(Bytes),
    /// The runner keeps it under this number, in these parts.
    Kept { number: u64, spans: Vec<Span> },
}

impl Answer {
    /// Reads the body of a frame and what came along; in words what is wrong with it.
    pub fn read(body: &[u8], files: Vec<File>) -> Result<Self, String> {
        let head = body.get(..ANSWER_BYTES).ok_or("it is too short")?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (text_end, outputs) = (ANSWER_BYTES + u32_at(24) as usize, u32_at(4) as usize);
        let exception_end = text_end + u32_at(28) as usize;
        let text = body.get(ANSWER_BYTES..text_end).ok_or("its text is cut short")?;
        let exception = body.get(text_end..exception_end).ok_or("its exception is cut short")?;
        let text = String::from_utf8_lossy(text).into_owned();
        match head[0] {
            0 => Ok(Self::Hello(text)),
            1 => {
                let outputs = read_outputs(&body[exception_end..], outputs, files)?;
                let [exec_ms, init_ms] = [8, 16].map(|at| u64_at(at) as f64 / 1e6);
                Ok(Self::Done { outputs, exec_ms, init_ms })
            }
            2 => Ok(Self::Failed { category: head[1], text, exception: exception.to_vec() }),
            3 => Ok(Self::NeedCode),
            kind => Err(format!("`{kind}` is no kind of answer")),
        }
    }
}

fn read_outputs(rest: &[u8], count: usize, files: Vec<File>) -> Result<Vec<Output>, String> {
    let (table, inline) = rest.split_at_checked(count * PLACE_BYTES).ok_or("its table is cut short")?;
    let map = |file: File| {
        let bytes = file.metadata()?.len();
        mapped::nameless(file, bytes)
    };
    let apart = files.into_iter().map(map).collect::<io::Result<Vec<Bytes>>>();
    let apart = apart.map_err(|e| format!("a file of its outputs cannot be mapped: {e}"))?;
    let read = |place: &[u8]| {
        let number = |at: usize| {
            let bytes: [u8; 8] = place[at..at + 8].try_into().expect("eight bytes");
            usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (from, bytes) = (number(8), number(16));
        let to = from.saturating_add(bytes);
        let index = u32::from_le_bytes(place[4..8].try_into().expect("four bytes"));
        match place[0] {
            KEPT => read_kept(inline.get(from..)?, index as usize, bytes as u64),
            MAPPED => {
                let whole = apart.get(index as usize).filter(|whole| to <= whole.len())?;
                // A mapping takes a descriptor and whole pages: what is small is better off without.
                let is_large = bytes as u64 >= SHARED_BYTES_MIN;
                let slice = || Bytes::copy_from_slice(&whole[from..to]);
                Some(Output::Here(if is_large { whole.slice(from..to) } else { slice() }))
            }
            _ => inline.get(from..to).map(|content| Output::Here(Bytes::copy_from_slice(content))),
        }
    };
    let outputs = table.chunks_exact(PLACE_BYTES).map(read).collect::<Option<Vec<_>>>();
    outputs.ok_or_else(|| "an output lies outside of it".to_owned())
}

/// Number and parts of an output of so many bytes that a runner keeps.
fn read_kept(told: &[u8], parts: usize, bytes: u64) -> Option<Output> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let told = told.get(..8 + parts * SPAN_BYTES)?;
    let spans = told[8..].chunks_exact(SPAN_BYTES);
    let spans: Vec<Span> =
        spans.map(|span| Some((number(&span[..8])?, number(&span[8..])?))).collect::<Option<_>>()?;
    let sum = spans.iter().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(*bytes))?;
    let number = number(&told[..8])?;
    (sum == bytes).then_some(Output::Kept { number, spans })
}

/// The digest that names the function of a call.
pub(super) fn digest(python: &PythonCall) -> Result<Digest, TaskError> {
    let text = python.code.0.as_bytes();
    let mut digest = [0; 32];
    let is_hex = text.len() == 64
        && digest.iter_mut().zip(text.chunks_exact(2)).all(|(byte, pair)| {
            let parsed = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.map(|parsed| *byte = parsed).is_some()
        });
    match is_hex {
        true => Ok(digest),
        false => Err(refused(format!("`{}` is not the SHA-256 of a function: 64 digits", python.code))),
    }
}

/// A task that no worker can run.
pub(super) fn refused(detail: String) -> TaskError {
    TaskError::of(FailureKind::UnknownFunction, format!("{detail}; hint: submit the workflow again"))
}

fn too_long(length: usize) -> TaskError {
    refused(format!("`{length}` bytes are too many for one part of a call"))
}

fn align(at: usize) -> usize {
    at.div_ceil(ALIGNMENT) * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::super::socket::Socket;
    use super::*;
    use crate::executor::testing::call;
    use serde_json::json;

    #[test]
    fn the_name_of_a_function_is_its_sha256_in_hexadecimal() {
        let python = |text: &str| PythonCall {
            code: foresail_schemas::code::CodeHash(text.to_owned()),
            args: None,
            python: None,
        };
        assert_eq!(digest(&python(&"0a".repeat(32))).unwrap(), [10; 32]);
        for text in ["", "0a", &"zz".repeat(32), &"+1".repeat(31), &"ä".repeat(32)] {
            assert!(digest(&python(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn large_inputs_go_in_files_and_small_ones_and_values_in_the_frame() {
        let task = json!({"id": "t", "name": "f", "run": "x",
            "inputs": [{"value": 7}, {"uri": "a"}, {"uri": "b"}, {"uri": "c"}, {"uri": "d"}]});
        let large = |byte| Bytes::from(vec![byte; APART_BYTES_MIN]);
        let mut mapped = tempfile::tempfile().unwrap();
        mapped.write_all(&large(3)).unwrap();
        let mapped = mapped::nameless(mapped, APART_BYTES_MIN as u64).unwrap();
        let mut call = call(task, vec!["7".into(), "small".into(), large(2), mapped, "".into()]);
        call.inputs[4] = None;
        let (socket, _other) = Socket::pair(std::time::Duration::from_secs(1)).unwrap();
        let (places, files) = places(&call, &Arc::new(Link::new(0, socket))).unwrap();
        assert_eq!(files.len(), 2);
        let kinds: Vec<String> = places
            .iter()
            .map(|place| match place {
                Place::Absent => "absent".to_owned(),
                Place::Inline(kind, content) => format!("{kind} {}", content.len()),
                Place::Kept { number, bytes } => format!("kept {number} {bytes}"),
                Place::File { index, offset, bytes } => format!("file {index} {offset} {bytes}"),
            })
            .collect();
        assert_eq!(kinds, ["3 1", "1 5", "file 1 0 65536", "file 0 0 65536", "absent"]);
    }

    #[test]
    fn nonsense_is_no_answer() {
        for body in [&b""[..], b"hello", &[9; 32], &[1, 0, 0, 0, 255, 255, 255, 0, 0, 0, 0, 0]] {
            assert!(Answer::read(body, Vec::new()).is_err(), "{body:?}");
        }
        let mut outside = vec![0; ANSWER_BYTES + PLACE_BYTES];
        (outside[0], outside[4], outside[ANSWER_BYTES]) = (1, 1, INLINE);
        outside[ANSWER_BYTES + 16] = 9;
        assert!(Answer::read(&outside, Vec::new()).unwrap_err().contains("outside"));
        outside[ANSWER_BYTES] = KEPT;
        assert!(Answer::read(&outside, Vec::new()).unwrap_err().contains("outside"));
    }
}
