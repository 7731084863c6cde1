//! The files of the project and what is code in them.
//!
//! The scans rely on the form that rustfmt gives to the code: a block ends with a brace at the indentation it
//! began at.

use std::path::{Path, PathBuf};

/// Folders that hold nothing of the project's own.
const FOREIGN: &[&str] = &[
    "target",
    ".git",
    ".venv",
    "node_modules",
    "foresail-data",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
];

/// A text file of the project.
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Content.
    pub text: String,
}

/// A function and its length.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every file of the project as (path from the root, bytes), in order of their paths.
pub fn all_files() -> Vec<(String, Vec<u8>)> {
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    paths.sort();
    let relative = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|p| (relative(p), std::fs::read(p).unwrap_or_default())).collect()
}

/// Every Rust file of the project.
pub fn rust_files() -> Vec<File> {
    let rust = all_files().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    rust.map(|(path, bytes)| File { path, text: String::from_utf8_lossy(&bytes).into_owned() }).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !FOREIGN.contains(&name.as_str()) {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

impl File {
    /// Whether it lies in `folder`.
    pub fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// What is compiled into the product: neither comments nor `#[cfg(test)]` parts.
    pub fn code(&self) -> String {
        without_tests(&self.text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Names of the files and folders that are compiled into tests only (`#[cfg(test)] mod name;`).
    pub fn test_modules(&self) -> Vec<String> {
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
        pairs.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';')).map(str::to_owned).collect()
    }

    /// The functions with a body.
    pub fn functions(&self) -> Vec<Function> {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins = |at: usize| function_name(lines[at]).map(|name| (at, name));
        (0..lines.len())
            .filter_map(begins)
            .map(|(at, name)| Function { name, lines: block_end(&lines, at).map_or(1, |end| end - at + 1) })
            .collect()
    }
}

/// The words of a text: runs of letters, digits and `_`.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line of the brace that closes the block begun at `at`; nothing where the item has no block over
/// several lines.
fn block_end(lines: &[&str], at: usize) -> Option<usize> {
    let indent = indentation(lines[at]);
    let closes = |line: &str| indentation(line) == indent && line.trim_start().starts_with('}');
    let ends_at_once = |line: &str| line.ends_with('}') || line.ends_with(';');
    if ends_at_once(lines[at]) {
        return None;
    }
    (at + 1..lines.len()).find(|&end| closes(lines[end]))
}

fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    let is_item = before.split_whitespace().all(|word| qualifiers.contains(&word));
    let name = words(after).next()?;
    (is_item && after.starts_with(name)).then(|| name.to_owned())
}

/// The text without the items that follow `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = String::new();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() == "#[cfg(test)]" {
            at += 1;
            while at < lines.len() && lines[at].trim_start().starts_with("#[") {
                at += 1;
            }
            at = if at < lines.len() { block_end(&lines, at).unwrap_or(at) + 1 } else { at };
            continue;
        }
        kept.push_str(lines[at]);
        kept.push('\n');
        at += 1;
    }
    kept
}

#[test]
fn code_is_what_is_left_without_comments_and_tests() {
    let text = "//! x\nuse a;\n#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\n\
                fn g() {}\n#[cfg(test)]\nmod far;\n// y\n";
    let file = File { path: "a/b.rs".to_owned(), text: text.to_owned() };
    assert_eq!(file.code(), "use a;\nfn g() {}\n");
    assert_eq!(file.test_modules(), ["far"]);
    assert!(file.is_in("a") && !file.is_in("a/b.r"));
}

#[test]
fn functions_are_measured_from_fn_to_the_closing_brace() {
    let text = "impl X {\n    pub async fn long(\n        a: u8,\n    ) {\n        b();\n    }\n\n\
                \x20   fn short() {}\n}\nlet x = fn_like();\n";
    let file = File { path: String::new(), text: text.to_owned() };
    let measured: Vec<_> = file.functions().into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(measured, [("long".to_owned(), 5), ("short".to_owned(), 1)]);
}
