//! The bridge: the client for one program of another language, over stdin and stdout.
//!
//! JSON-RPC 2.0, one object per line; `docs/bridge.md` has the methods. What is large goes by files in a
//! directory of the session, which is gone when it ends. Requests are answered as they are done, in any
//! order. The session ends when stdin is closed, when the program asks for it, or when whoever serves says
//! so; runs of a stack that ends with it are cancelled first. Nothing but answers is written to stdout.
//!
//! Times in ms, sizes in bytes, memory in MB, money in USD.

mod calls;
mod eta;
mod follow;
mod reasons;
mod results;
mod wire;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foresail_schemas::platform::Platform;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::client::Client;
use crate::error::ClientError;
use calls::Session;
use wire::{Fault, Request};

/// Version of the methods and their parameters; the other side asks for one.
pub const PROTOCOL: u32 = 1;
/// Requests that are worked on at the same time; further ones wait in the pipe.
const REQUESTS_MAX: usize = 256;
/// Lines that wait to be written.
const LINES_MAX: usize = 1024;
/// Longest request in bytes; what is longer goes by file.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Longest wait for the runs of a stack that ends to be cancelled, and for the last answers to be written.
const END_LIMIT: Duration = Duration::from_secs(3);

/// What a session works with.
#[derive(Debug, Clone)]
pub struct Served {
    /// The connection.
    pub client: Client,
    /// The platform of its workers.
    pub platform: Platform,
    /// Whose stack it is.
    pub place: Place,
    /// Address of metad.
    pub metad: String,
    /// Address of the host of the workers.
    pub host: String,
}

/// Whose stack a session uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One that ends with the session, with its data directory.
    Embedded(PathBuf),
    /// One that was running.
    Running,
}

/// Serves until stdin is closed, the other side asks for the end, or `ended` completes.
///
/// # Errors
/// [`ClientError::Stack`] when there is no place for the files of the session.
pub async fn serve(served: Served, ended: impl Future<Output = ()>) -> Result<(), ClientError> {
    let scratch = tempfile::Builder::new().prefix("foresail-session-").tempdir();
    let scratch = scratch
        .map_err(|e| ClientError::Stack { part: "the directory of the session", reason: e.to_string() })?;
    let (say, lines) = mpsc::channel(LINES_MAX);
    let written = write_lines(lines);
    let over = Arc::new(Notify::new());
    let session = Arc::new(Session::new(served, scratch.path().to_owned(), say, Arc::clone(&over)));
    tokio::select! {
        () = answer_all(&session, read_lines()) => {}
        () = over.notified() => {}
        () = ended => {}
    }
    let _ = tokio::time::timeout(END_LIMIT, session.end()).await;
    drop(session);
    let _ = tokio::time::timeout(END_LIMIT, written).await;
    Ok(())
}

/// Answers requests until there are none any more.
async fn answer_all(session: &Arc<Session>, mut lines: mpsc::Receiver<Result<Vec<u8>, String>>) {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    while let Some(line) = lines.recv().await {
        let request =
            line.and_then(|line| serde_json::from_slice::<Request>(&line).map_err(|e| e.to_string()));
        match request {
            Err(reason) => session.say(wire::answer(None, Err(Fault::no_request(&reason)))).await,
            Ok(request) => {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let session = Arc::clone(session);
                tokio::spawn(async move {
                    let Request { id, method, params } = request;
                    let done = session.call(&method, params).await;
                    if id.is_some() {
                        session.say(wire::answer(id, done)).await;
                    }
                    drop(place);
                });
            }
        }
    }
}

/// The lines of stdin, until it is closed. They are read on a thread that nobody waits for: a read from a
/// pipe cannot be given up.
fn read_lines() -> mpsc::Receiver<Result<Vec<u8>, String>> {
    let (tell, told) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            match read_line(&mut stdin) {
                Ok(None) => return,
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => {
                    if tell.blocking_send(Ok(line)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let _ = tell.blocking_send(Err(error.to_string()));
                    return;
                }
            }
        }
    });
    told
}

/// One line without its end; nothing at the end of the input.
fn read_line(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    let read = std::io::Read::take(&mut *input, limit).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        let reason =
            format!("a request has at most {LINE_BYTES_MAX} bytes; hint: send the workflow as a file");
        return Err(std::io::Error::other(reason));
    }
    Ok(Some(line))
}

/// Writes lines to stdout until nobody says any more or nobody reads; completes then.
fn write_lines(mut lines: mpsc::Receiver<String>) -> tokio::sync::oneshot::Receiver<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        while let Some(mut line) = lines.blocking_recv() {
            line.push('\n');
            if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                break;
            }
        }
        let _ = tell.send(());
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_to_the_end_of_the_input_the_last_without_an_end_too() {
        let mut input = &b"one\n\ntwo"[..];
        let read: Vec<_> = std::iter::from_fn(|| read_line(&mut input).unwrap()).collect();
        assert_eq!(read, [&b"one"[..], b"", b"two"]);
    }
}
