//! The stream that a data directory follows: `metad.batchlog` beside the database.
//!
//! It is written, and synced, before the first batch of the stream is learnt, and never changed. A copy of
//! the directory takes it along, so that a new replica may begin with the copy of another.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the data directory.
const FILE_NAME: &str = "metad.batchlog";

/// A stream. Two of the same name are told apart by when they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// Its name.
    pub stream: String,
    /// When it was made, in ns since 1970, as text.
    pub created_ns: String,
}

impl Home {
    /// The stream that `directory` follows; nothing where it follows none.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn of(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("`{}` cannot be read: {error}", path.display())),
        };
        let home = serde_json::from_slice(&text);
        home.map(Some).map_err(|error| format!("`{}` is damaged: {error}", path.display()))
    }

    /// Has `directory` follow this stream from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    #[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "only a build with a log writes it"))]
    pub fn keep(&self, directory: &Path) -> std::io::Result<()> {
        let (path, draft) = (directory.join(FILE_NAME), directory.join("metad.batchlog.new"));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(self).expect("two texts always have a JSON form"))?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        File::open(directory)?.sync_all()
    }
}

/// Checks that `directory`, which has learnt something up to `epoch`, fits the setting of the log.
///
/// # Errors
/// Why it does not, and what to do.
pub fn check(directory: &Path, epoch: u64, stream: Option<&str>) -> Result<(), String> {
    let shown = directory.display();
    match (Home::of(directory)?, stream) {
        (None, None) => Ok(()),
        (None, Some(_)) if epoch == 0 => Ok(()),
        (None, Some(stream)) => Err(format!(
            "`{shown}` has batches that are not from the stream `{stream}`\n\
             hint: start with an empty --data directory; post the samples of the old one \
             (GET …/samples?format=ndjson) to a replica once"
        )),
        (Some(home), None) => Err(format!(
            "`{shown}` follows the stream `{}` and takes batches from nowhere else\n\
             hint: set --batch-log nats://HOST:PORT?stream={}, or choose another --data directory",
            home.stream, home.stream
        )),
        (Some(home), Some(stream)) if home.stream == stream => Ok(()),
        (Some(home), Some(stream)) => Err(format!(
            "`{shown}` follows the stream `{}`, not `{stream}`\nhint: choose another --data directory",
            home.stream
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_follows_one_stream_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(check(path, 7, None).is_ok() && check(path, 0, Some("a")).is_ok());
        assert!(check(path, 7, Some("a")).unwrap_err().contains("not from the stream `a`"));
        let home = Home { stream: "a".to_owned(), created_ns: "17".to_owned() };
        home.keep(path).unwrap();
        assert_eq!(Home::of(path).unwrap(), Some(home));
        assert!(check(path, 7, Some("a")).is_ok() && check(path, 0, Some("a")).is_ok());
        assert!(check(path, 7, Some("b")).unwrap_err().contains("not `b`"));
        assert!(check(path, 7, None).unwrap_err().contains("stream=a"));
        std::fs::write(path.join(FILE_NAME), "{").unwrap();
        assert!(check(path, 7, None).unwrap_err().contains("damaged"));
    }
}
