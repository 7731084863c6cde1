//! Where a workflow comes from: an example, a workflow as JSON, or a WfFormat instance.

use std::path::{Path, PathBuf};

use foresail_planner::shapes::Shape;
use foresail_schemas::platform::Platform;
use foresail_schemas::wfformat::{self, Scale};
use foresail_schemas::{Workflow, WorkflowName};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::args::PlanningArgs;
use super::error::CliError;
use crate::examples::{self, Example};

/// Largest workflow file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The workflow that the arguments name. A WfFormat file is scaled by `default_scale` where the arguments say
/// nothing.
///
/// # Errors
/// [`CliError::Input`] with the place in the file where that can be told.
pub fn workflow(args: &PlanningArgs, default_scale: Scale) -> Result<Workflow, CliError> {
    let path = Path::new(&args.workflow);
    if !path.exists() {
        let example = Example::find(&args.workflow).ok_or_else(|| no_such(&args.workflow))?;
        let folder = args.folder.clone().unwrap_or_else(examples::default_folder);
        return Ok(example.workflow(args.size, &folder)?);
    }
    let scale = Scale {
        time: args.time_scale.unwrap_or(default_scale.time),
        size: args.size_scale.unwrap_or(default_scale.size),
    };
    parse(&read(path)?, &args.workflow, scale)
}

/// The synthetic workflow of this shape, or the workflow of this file, as it was recorded.
///
/// # Errors
/// [`CliError::Input`] when it is neither.
pub fn shape_or_file(text: &str) -> Result<Workflow, CliError> {
    let path = Path::new(text);
    if path.exists() {
        return parse(&read(path)?, text, Scale { time: 1.0, size: 1.0 });
    }
    let shape = text
        .parse::<Shape>()
        .map_err(|e| CliError::input(format!("there is no file `{text}`"), format!("or as a shape: {e}")))?;
    Ok(shape.workflow())
}

/// The workflow of a file's content.
fn parse(text: &str, name: &str, scale: Scale) -> Result<Workflow, CliError> {
    let wrong = |why: String, hint: &str| CliError::input(format!("`{name}` is no workflow: {why}"), hint);
    // Whose form it is in is seen without keeping what is read: a file may have a million tasks.
    let form = match serde_json::from_str::<Form>(text) {
        Err(e) if e.is_syntax() || e.is_eof() => {
            let hint = "a workflow file is one JSON document";
            return Err(wrong(format!("it is not JSON: {e}"), hint));
        }
        form => form.unwrap_or_default(),
    };
    if !form.is_wfformat() {
        let hint = "see docs/getting-started.md for the form of a workflow, or /openapi.json of metad";
        return serde_json::from_str(text).map_err(|e| wrong(e.to_string(), hint));
    }
    let hint = "the file must be a WfFormat 1.5 instance, as WfCommons writes it";
    let read = wfformat::read(text).map_err(|e| wrong(e.to_string(), hint))?;
    let scaled = wfformat::scaled(&read, scale)
        .map_err(|e| wrong(e.to_string(), "give another --time-scale or --size-scale"))?;
    named_by_scale(&scaled, scale).map_err(|e| wrong(e, "give the workflow a shorter name"))
}

/// At another scale a task takes another time: its history must not be taken for that of the recorded scale.
fn named_by_scale(workflow: &Workflow, scale: Scale) -> Result<Workflow, String> {
    if scale == (Scale { time: 1.0, size: 1.0 }) {
        return Ok(workflow.clone());
    }
    let mut spec = workflow.spec().clone();
    let name = format!("{}@{}x{}", spec.name, scale.time, scale.size);
    spec.name = WorkflowName::new(name).map_err(|e| e.to_string())?;
    spec.check().map_err(|e| e.to_string())
}

/// What tells a WfFormat instance from a workflow of our own.
#[derive(Debug, Default, Deserialize)]
struct Form {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<IgnoredAny>,
    workflow: Option<Recorded>,
}

#[derive(Debug, Default, Deserialize)]
struct Recorded {
    specification: Option<IgnoredAny>,
}

impl Form {
    fn is_wfformat(&self) -> bool {
        let has_specification = self.workflow.as_ref().is_some_and(|w| w.specification.is_some());
        self.schema_version.is_some() || has_specification
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    let name = path.display();
    let wrong = |why: String| {
        CliError::input(
            format!("`{name}` cannot be read: {why}"),
            "give a file of at most 1 GiB that you may read",
        )
    };
    let bytes = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {bytes} bytes")));
    }
    std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))
}

/// Says which examples there are.
pub fn no_such(name: &str) -> CliError {
    let known: Vec<String> =
        examples::ALL.iter().map(|e| format!("\n  {:<22}{}", e.name, e.description)).collect();
    CliError::input(
        format!("there is no file and no example `{name}`"),
        format!("the examples are:{}", known.concat()),
    )
}

/// The recorded workflows of WfFormat files, and of the JSON files of folders, as `(name, workflow)`.
///
/// # Errors
/// [`CliError::Input`] with the file that is none.
pub fn recorded(paths: &[PathBuf]) -> Result<Vec<(String, Workflow)>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let hint = "give files, or a folder that you may read";
        let wrong =
            |e: std::io::Error| CliError::input(format!("`{}` cannot be read: {e}", path.display()), hint);
        let entries = std::fs::read_dir(path).map_err(wrong)?.flatten().map(|entry| entry.path());
        let mut inside: Vec<PathBuf> =
            entries.filter(|file| file.extension().is_some_and(|ending| ending == "json")).collect();
        inside.sort_unstable();
        files.extend(inside);
    }
    let read = |path: &PathBuf| {
        let hint = "the file must be a WfFormat 1.5 instance, as WfCommons writes it";
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let workflow = wfformat::read(&read(path)?);
        let wrong = |e| CliError::input(format!("`{}` is no workflow: {e}", path.display()), hint);
        Ok((name, workflow.map_err(wrong)?))
    };
    files.iter().map(read).collect()
}

/// The platform of this name, or of this TOML file.
///
/// # Errors
/// [`CliError::Input`] when there is none, or the file is no platform table.
pub fn platform(name: &str) -> Result<Platform, CliError> {
    let built_in = Platform::built_in();
    if let Some(platform) = built_in.iter().find(|p| p.name.as_str() == name) {
        return Ok(platform.clone());
    }
    if !Path::new(name).exists() {
        let known: Vec<_> = built_in.iter().map(|p| p.name.to_string()).collect();
        let hint = format!("use `{}` or the path of a table like those in platforms/", known.join("`, `"));
        return Err(CliError::input(format!("there is no platform and no file `{name}`"), hint));
    }
    let text = read(Path::new(name))?;
    Platform::from_toml(&text).map_err(|e| {
        let hint = "docs/platforms.md says what a table has; those in platforms/ are examples";
        CliError::input(format!("`{name}` is no platform table: {e}"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "w.json", Scale { time: 1.0, size: 1.0 }).expect_err("wrong on purpose").to_string()
    }

    #[test]
    fn a_wrong_file_is_named_with_the_place_or_the_task() {
        assert!(error("{").contains("line 1"), "{}", error("{"));
        let missing = r#"{"name":"w","tasks":[{"id":"a","name":"a","run":"true","after":["b"]}]}"#;
        assert!(error(missing).contains("`b`"), "{}", error(missing));
        let version = r#"{"name":"w","schemaVersion":"1.3","workflow":{"specification":{"tasks":[]}}}"#;
        assert!(error(version).contains("1.3"), "{}", error(version));
        let cut = r#"{"name":"w","tasks":["#;
        assert!(error(cut).contains("it is not JSON"), "{}", error(cut));
        assert!(!error("[]").contains("it is not JSON"), "{}", error("[]"));
        let without_version = r#"{"name":"w","workflow":{"specification":{"tasks":[]}}}"#;
        assert!(!error(without_version).contains("unknown field"), "{}", error(without_version));
    }

    #[test]
    fn wfformat_is_told_from_a_workflow_of_our_own() {
        let own = r#"{"name":"w","tasks":[{"id":"a","name":"a","run":"true"}]}"#;
        assert_eq!(parse(own, "w", Scale { time: 1.0, size: 1.0 }).unwrap().tasks().len(), 1);
        let foreign = r#"{"name":"w","schemaVersion":"1.5","workflow":{"specification":{"tasks":[
            {"id":"t1","name":"t","parents":[],"children":[]}],"files":[]},
            "execution":{"makespanInSeconds":2,"executedAt":"x","tasks":[{"id":"t1","runtimeInSeconds":2.0}],
            "machines":[]}}}"#;
        let workflow = parse(foreign, "w", Scale { time: 0.01, size: 1.0 }).unwrap();
        assert_eq!(workflow.task(0).hint.exec_ms, Some(20.0));
        assert_eq!(workflow.name().as_str(), "w@0.01x1", "another scale has a history of its own");
    }

    #[test]
    fn platforms_are_found_by_name() {
        assert_eq!(platform("aws-lambda-x86").unwrap().name.as_str(), "aws-lambda-x86");
        let error = platform("moon").unwrap_err();
        assert_eq!(error.to_string(), "there is no platform and no file `moon`");
        assert!(error.hint().contains("local"));
    }

    #[test]
    fn a_file_that_is_no_platform_table_is_told_from_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pl.toml");
        let path = file.to_str().unwrap();
        let table = include_str!("../../../platforms/local.toml");
        for (text, word) in [
            ("name = \"x\"", "missing field"),
            (&table.replace("lanes = 1", "lanes = 1\nlane = 3"), "`lane`"),
            (
                &table.replace("[default_config]\nmemory_mb = 885", "[default_config]\nmemory_mb = 886"),
                "menu",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = platform(path).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{path}` is no platform table: ")), "{error}");
            assert!(error.to_string().contains(word) && !error.hint().contains("aws-lambda"), "{error}");
        }
        let error = platform(folder.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
