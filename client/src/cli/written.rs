//! Files that a command is to write: whether they can be is known before the work is done.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::error::CliError;

/// Refuses what cannot be the name of a file, before anything is asked for. `option` is where it was given.
///
/// # Errors
/// [`CliError::Input`] with the name, or the folder that is not there.
pub fn may_be_named(file: &Path, option: &str) -> Result<(), CliError> {
    let (name, folder) = (file.display(), folder(file));
    if !folder.is_dir() {
        let what = format!("`{name}` cannot be written: there is no folder `{}`", folder.display());
        return Err(CliError::input(what, format!("make it with `mkdir -p {}`", folder.display())));
    }
    if file.is_dir() {
        return Err(CliError::input(format!("`{name}` is a folder"), format!("name a file with {option}")));
    }
    Ok(())
}

/// Refuses a file that cannot be written in its place, before anything is asked for; it stays as it is.
///
/// # Errors
/// [`CliError::Input`] with the name and why.
pub fn may_be_written(file: &Path, option: &str) -> Result<(), CliError> {
    may_be_named(file, option)?;
    let tried = match file.metadata() {
        Ok(known) if known.is_file() => OpenOptions::new().append(true).open(file).map(drop),
        // A pipe has a reader who would take an end of it for the end of all.
        Ok(_) => Ok(()),
        // The name of the file that is tried with is nobody's business.
        Err(_) => tempfile::tempfile_in(folder(file)).map(drop).map_err(|e| e.kind().into()),
    };
    tried.map_err(|e| {
        let what = format!("`{}` cannot be written: {e}", file.display());
        CliError::input(what, format!("name a file that you may write with {option}"))
    })
}

/// The error of writing a file, with its name.
pub fn failed(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", file.display()))
}

/// The folder of a file.
pub fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_be_written_stays_as_it_is_and_others_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        std::fs::write(&old, "kept").unwrap();
        for file in [&new, &old, Path::new("/dev/null")] {
            assert!(may_be_written(file, "--html").is_ok(), "{}", file.display());
        }
        assert!(!new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
        for (file, word) in [(dir.path().join("none/x"), "mkdir"), (dir.path().to_owned(), "--html")] {
            let error = may_be_written(&file, "--html").unwrap_err();
            assert!(error.to_string().contains(&file.display().to_string()), "{error}");
            assert!(error.hint().contains(word), "{}", error.hint());
        }
    }
}
