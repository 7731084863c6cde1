//! `deploy`, `doctor` and `destroy` as typed, against moto's server.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::emulator::KEYS;
use crate::package;
use crate::servers::Moto;

/// The program where an account is that moto keeps, in a directory that has a package.
pub struct Account {
    moto: Moto,
    dir: tempfile::TempDir,
}

impl Account {
    /// An empty one; nothing where moto is not installed.
    pub fn new() -> Option<Self> {
        Some(Self { moto: Moto::start()?, dir: package::in_a_directory() })
    }

    pub fn moto(&self) -> &Moto {
        &self.moto
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn foresail(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foresail"));
        command.args(args).envs(KEYS).env("AWS_ENDPOINT_URL", self.moto.url()).current_dir(self.dir.path());
        command.env_remove("FORESAIL_METAD").env_remove("FORESAIL_HOST").output().unwrap()
    }

    /// What a command writes, that succeeds.
    pub fn done(&self, args: &[&str]) -> Value {
        let output = self.foresail(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub const DEPLOY: [&str; 6] = ["deploy", "aws", "--memory", "512,1769", "--package", "bootstrap.zip"];

#[test]
fn a_deployment_is_shown_made_looked_at_and_destroyed() {
    let Some(moto) = Account::new() else { return };
    let done = |args: &[&str]| moto.done(args);
    let shown = done(&[&DEPLOY[..], &["--dry-run"]].concat());
    let broken = moto.foresail(&["doctor", "aws"]);
    assert_eq!(broken.status.code(), Some(1), "nothing was made");
    assert!(text(&broken.stderr).contains("3 parts of the deployment"), "{}", text(&broken.stderr));
    let made = done(&DEPLOY);
    assert_eq!(made, shown);
    let found = done(&["doctor", "aws"]);
    assert!(found.as_array().unwrap().iter().all(|finding| finding["health"] == "good"), "{found}");
    assert_eq!(done(&["destroy", "aws"])["parts"].as_array().unwrap().len(), 4);
    assert!(text(&moto.foresail(&["destroy", "aws"]).stderr).contains("there was nothing"));
}

#[test]
fn objects_go_with_their_deployment_only_where_that_is_asked_for() {
    let Some(account) = Account::new() else { return };
    let keys = ["foresail/r/t/1-w/out", "foresail/r/u/1-w/out", "other/r/t/1-w/out"];
    keys.iter().for_each(|key| account.moto().put(key, "x"));
    let with_bucket = [&DEPLOY[..], &["--bucket", "bucket"]].concat();
    account.done(&with_bucket);
    let told = account.foresail(&["destroy", "aws"]);
    let said = text(&told.stderr);
    assert!(
        said.contains("s3://bucket/foresail stays") && said.contains("--objects --bucket bucket"),
        "{said}"
    );
    assert_eq!(account.moto().keys(), keys);
    let refused = account.foresail(&["destroy", "aws", "--objects"]);
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("--bucket"), "{refused:?}");
    account.done(&with_bucket);
    let gone = account.done(&["destroy", "aws", "--objects"]);
    let parts = gone["parts"].as_array().unwrap();
    let last = serde_json::json!({"kind": "objects", "name": "s3://bucket/foresail", "detail": "2 objects"});
    assert_eq!((parts.len(), &parts[4]), (5, &last));
    assert_eq!(account.moto().keys(), keys[2..]);
    account.done(&["destroy", "aws", "--objects", "--bucket", "bucket", "--prefix", "other"]);
    assert!(account.moto().keys().is_empty());
}

#[test]
fn terraform_is_text_on_stdout_and_asks_nothing() {
    let command = Command::new(env!("CARGO_BIN_EXE_foresail"))
        .args(["deploy", "aws", "--memory", "512,1769", "--image", "1.dkr.ecr.us-east-1.amazonaws.com/f:1"])
        .args(["--emit", "terraform", "--token", "very-secret"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .output()
        .unwrap();
    assert!(command.status.success(), "{}", text(&command.stderr));
    let said = text(&command.stdout);
    assert!(said.contains("resource \"aws_lambda_function\" \"worker\"") && !said.contains("very-secret"));
}

#[test]
fn what_cannot_be_deployed_is_said_before_aws_is_asked() {
    let output = Command::new(env!("CARGO_BIN_EXE_foresail"))
        .args(["deploy", "aws", "--memory", "64", "--image", "i"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("`64` MB") && said.contains("hint: "), "{said}");
}
