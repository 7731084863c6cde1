//! `deploy`, `doctor` and `destroy` as typed, against moto's server.

use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::emulator::{KEYS, free_address, program, wait_for};
use crate::package::PACKAGE;

struct Moto {
    server: Child,
    url: String,
    dir: tempfile::TempDir,
}

impl Moto {
    fn start() -> Option<Self> {
        let hint = "`make test` installs it into .venv: pip install 'moto[server]'";
        let program = program("FORESAIL_MOTO_SERVER", "moto_server", hint)?;
        let address = free_address();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]).stdin(Stdio::null());
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(address, &mut server);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bootstrap.zip"), PACKAGE).unwrap();
        Some(Self { server, url: format!("http://{address}"), dir })
    }

    fn foresail(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foresail"));
        command.args(args).envs(KEYS).env("AWS_ENDPOINT_URL", &self.url).current_dir(self.dir.path());
        command.env_remove("FORESAIL_METAD").env_remove("FORESAIL_HOST").output().unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const DEPLOY: [&str; 6] = ["deploy", "aws", "--memory", "512,1769", "--package", "bootstrap.zip"];

#[test]
fn a_deployment_is_shown_made_looked_at_and_destroyed() {
    let Some(moto) = Moto::start() else { return };
    let done = |args: &[&str]| {
        let output = moto.foresail(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
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
