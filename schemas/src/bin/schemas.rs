//! Writes the files that are generated from the wire types, or says which are out of date.
//!
//! `--check` ends with 1 when a file is out of date; `--write` rewrites those.

use std::path::Path;
use std::process::ExitCode;

use foresail_schemas::generate::{WRITE_COMMAND, out_of_date};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write"] => match write(&root) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: the files cannot be written: {error}");
                ExitCode::FAILURE
            }
        },
        ["--check"] => check(&root),
        _ => {
            eprintln!("usage: schemas --check | --write");
            ExitCode::from(2)
        }
    }
}

fn write(root: &Path) -> std::io::Result<()> {
    for (path, content) in out_of_date(root) {
        let target = root.join(&path);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(target, content)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn check(root: &Path) -> ExitCode {
    let stale = out_of_date(root);
    if stale.is_empty() {
        return ExitCode::SUCCESS;
    }
    for (path, _) in stale {
        println!("{}", path.display());
    }
    eprintln!("error: these files are out of date\nhint: {WRITE_COMMAND}");
    ExitCode::FAILURE
}
