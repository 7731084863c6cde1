//! Redis over TLS: who signed its certificate decides whether it is spoken to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use foresail::schemas::RunId;
use foresail_worker::coordination::CoordinationSettings;
use foresail_worker::metad::Metad;

use crate::coordination::{Subject, conforms};
use crate::servers::{Redis, free_address, installed};

/// An authority, and a server on loopback that it has signed for.
struct Signed {
    dir: tempfile::TempDir,
}

impl Signed {
    /// Makes them; nothing where openssl is not installed.
    fn new() -> Option<Self> {
        let openssl = installed("FORESAIL_OPENSSL", "openssl")?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for arguments in [
            format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
            format!("req {key} -keyout server.key -out server.csr -subj /CN=server"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 \
             -extfile names"
                .to_owned(),
        ] {
            let mut command = Command::new(&openssl);
            command.args(arguments.split_whitespace()).current_dir(dir.path()).stderr(Stdio::null());
            assert!(command.status().unwrap().success(), "openssl {arguments}");
        }
        Some(Self { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server that speaks TLS alone.
    fn server(&self) -> Option<Redis> {
        let address = free_address();
        let files = ["ca.pem", "server.pem", "server.key"].map(|name| self.file(name).display().to_string());
        let [ca, certificate, key] = &files;
        let port = address.port().to_string();
        let mut arguments = vec!["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"];
        arguments.extend(["--tls-ca-cert-file", ca, "--tls-cert-file", certificate, "--tls-key-file", key]);
        Redis::start_at(address, &arguments)
    }
}

fn over_tls(redis: &Redis, ca: Option<&Path>) -> CoordinationSettings {
    let ca = ca.map(|file| format!("?ca={}", file.display())).unwrap_or_default();
    format!("rediss://{}{ca}", redis.address()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_conforms() {
    let Some(signed) = Signed::new() else { return };
    let Some(redis) = signed.server() else { return };
    let subject = Subject::new(over_tls(&redis, Some(&signed.file("ca.pem")))).await;
    conforms(&subject).await;
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_another_authority_signed_for_is_refused() {
    let (Some(signed), Some(other)) = (Signed::new(), Signed::new()) else { return };
    let Some(redis) = signed.server() else { return };
    let run = RunId::new("r").unwrap();
    let metad = Metad::new("http://127.0.0.1:9", None).unwrap();
    for ca in [None, Some(other.file("ca.pem"))] {
        let state = over_tls(&redis, ca.as_deref()).open(&metad).unwrap();
        let told = state.summary(&run).await.unwrap_err().to_string();
        assert!(told.contains("certificate") && told.contains("hint: name the authority"), "{told}");
    }
    let state = over_tls(&redis, Some(&signed.file("ca.pem"))).open(&metad).unwrap();
    let missing = state.workflow(&run).await.unwrap_err().to_string();
    assert!(missing.contains("127.0.0.1:9"), "Redis has no such run, so metad is asked: {missing}");
}
