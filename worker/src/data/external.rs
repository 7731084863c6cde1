//! Addresses of files outside the workflow: paths, and `file://` with percent-encoding.

use std::path::PathBuf;

/// The path that an address names; what is wrong with it else.
pub(super) fn path(uri: &str) -> Result<PathBuf, String> {
    if let Some(rest) = uri.strip_prefix("file://") {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        return percent_decoded(path).map(PathBuf::from);
    }
    match uri.split_once("://") {
        Some((scheme, _)) => Err(format!("a worker reads paths and `file://` addresses, not `{scheme}://`")),
        None => Ok(PathBuf::from(uri)),
    }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = (byte == b'%').then(|| tail.get(..2)).flatten();
        let escaped = hex.and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(decoded).map_err(|_| "the address is not UTF-8".to_owned())
}
