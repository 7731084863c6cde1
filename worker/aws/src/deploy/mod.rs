//! A deployment as data: a function per memory size, the role they run with, the group of their logs.
//!
//! [`Deployment::parts`] names everything that [`make`] makes, [`look`] looks at and [`destroy`] destroys;
//! the Terraform of [`terraform`] says the same. Every part carries the tag [`TAG`] with the prefix of the
//! deployment, and what does not carry it is neither changed nor destroyed.

mod apply;
mod doctor;
mod remove;
mod terraform;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

pub use apply::make;
pub use doctor::{Finding, Health, look};
pub use remove::{Objects, destroy, objects};
pub use terraform::terraform;

use crate::host::{ALIAS, function_name};

/// The tag of everything that is made; its value is the prefix of the deployment.
pub const TAG: &str = "foresail:deployment";
/// Longest time of a function: the most that Lambda gives one.
pub const TIMEOUT_S: u32 = 900;
/// How long logs are kept.
pub const LOG_DAYS: i32 = 14;
/// How long an asynchronous invocation may wait in Lambda's queue. The watchdog of a run has invoked again
/// long before.
pub const EVENT_AGE_S_MAX: i32 = 300;
/// Smallest and largest memory of a function in MB. Source: Lambda quotas page, 2025-11.
pub const MEMORY_MB: (u32, u32) = (128, 10_240);
/// Most bytes of a package that travels in the request. Source: Lambda quotas page, 2025-11.
pub const ZIP_BYTES_MAX: u64 = 50 << 20;
/// Most characters of a prefix: the name of the role is the longest, and IAM allows 64.
const PREFIX_LEN_MAX: usize = 50;

/// Why a deployment could not be made, looked at or destroyed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DeployError {
    /// What was wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl DeployError {
    /// An error with what to do about it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// The processor of the functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Processor {
    /// `x86_64`.
    #[default]
    X86,
    /// `arm64`: a fifth cheaper.
    Arm,
}

impl Processor {
    /// As Lambda writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "arm64",
        }
    }
}

/// What the functions run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Package {
    /// A zip file with the program under the name `bootstrap`.
    Zip(PathBuf),
    /// A container image in ECR, by its address.
    Image(String),
}

/// What is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Begin of all names.
    pub prefix: String,
    /// Memory sizes in MB.
    pub memory_mb: Vec<u32>,
    /// What the functions run.
    pub package: Package,
    /// The processor that it is for.
    pub processor: Processor,
    /// Bucket for objects too large for a commit record; blobs of metad where absent.
    pub bucket: Option<String>,
    /// Address of Redis, where the state of runs is kept there.
    pub redis: Option<String>,
    /// Address of metad as the functions reach it; they work for no other then.
    pub metad: Option<String>,
    /// Token of metad.
    pub token: Option<String>,
    /// Subnets of a VPC, where metad or Redis is to be reached there.
    pub subnets: Vec<String>,
    /// Security groups in it.
    pub security_groups: Vec<String>,
}

/// One part of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What is to be known of it.
    pub detail: String,
}

/// Where a deployment lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `aws`, or that of China or of the government.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The number of the account.
    pub account: String,
}

impl Deployment {
    /// Checks what can be known before anything is asked.
    ///
    /// # Errors
    /// [`DeployError`] with the value that does not do.
    pub fn check(&self) -> Result<(), DeployError> {
        check_prefix(&self.prefix)?;
        if self.memory_mb.is_empty() {
            return Err(DeployError::new("no memory size is named", "give --memory 512,1769,3538"));
        }
        let (least, most) = MEMORY_MB;
        if let Some(size) = self.memory_mb.iter().find(|size| !(least..=most).contains(size)) {
            return Err(DeployError::new(
                format!("a function of `{size}` MB there is none"),
                format!("Lambda offers {least} to {most} MB"),
            ));
        }
        if self.subnets.is_empty() != self.security_groups.is_empty() {
            return Err(DeployError::new(
                "a VPC needs subnets and security groups, and only one of them is named",
                "give both --subnets and --security-groups",
            ));
        }
        match &self.package {
            Package::Zip(path) => check_zip(path),
            Package::Image(_) => Ok(()),
        }
    }

    /// Everything that is made, in this order.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |kind, name: String, detail: String| Part { kind, name, detail };
        let logs = part("log group", log_group(&self.prefix), format!("kept {LOG_DAYS} days"));
        let role = part("role", role_name(&self.prefix), "trusted by lambda.amazonaws.com alone".to_owned());
        let may = self.policy(&Place::unknown())["Statement"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|statement| actions(&statement["Action"]))
            .collect::<Vec<_>>();
        let policy = part("policy", role_name(&self.prefix), may.join("; "));
        let what = match &self.package {
            Package::Zip(path) => format!("provided.al2023, {}", path.display()),
            Package::Image(image) => image.clone(),
        };
        let functions = self.memory_mb.iter().flat_map(|memory_mb| {
            let name = function_name(&self.prefix, *memory_mb);
            let detail = format!("{memory_mb} MB, {TIMEOUT_S} s, {}, {what}", self.processor.as_str());
            let alias = part("alias", format!("{name}:{ALIAS}"), "no retries by Lambda".to_owned());
            [part("function", name, detail), alias]
        });
        [logs, role, policy].into_iter().chain(functions).collect()
    }

    /// What the functions may do: invoke each other, write their logs, use the bucket where there is one, and
    /// be in the VPC where there is one. Nothing else.
    #[must_use]
    pub fn policy(&self, place: &Place) -> Value {
        let Place { partition, region, account } = place;
        let function = |memory_mb: &u32| {
            let name = function_name(&self.prefix, *memory_mb);
            format!("arn:{partition}:lambda:{region}:{account}:function:{name}:{ALIAS}")
        };
        let functions: Vec<String> = self.memory_mb.iter().map(function).collect();
        let group = log_group(&self.prefix);
        let mut statements = vec![
            json!({"Sid": "InvokeEachOther", "Effect": "Allow", "Action": ["lambda:InvokeFunction"],
                "Resource": functions}),
            json!({"Sid": "WriteLogs", "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": [format!("arn:{partition}:logs:{region}:{account}:log-group:{group}:*")]}),
        ];
        if let Some(bucket) = &self.bucket {
            let prefix = &self.prefix;
            statements.push(json!({"Sid": "UseObjects", "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                "Resource": [format!("arn:{partition}:s3:::{bucket}/{prefix}/*")]}));
            // Without it an object that is missing would be answered as one that is forbidden.
            statements.push(json!({"Sid": "SeeObjects", "Effect": "Allow", "Action": ["s3:ListBucket"],
                "Resource": [format!("arn:{partition}:s3:::{bucket}")],
                "Condition": {"StringLike": {"s3:prefix": [format!("{prefix}/*")]}}}));
        }
        if !self.subnets.is_empty() {
            // Lambda asks for these on every resource. Source: Lambda developer guide, VPC permissions.
            statements.push(json!({"Sid": "BeInTheVpc", "Effect": "Allow", "Action": [
                "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
                "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses",
                "ec2:UnassignPrivateIpAddresses"], "Resource": ["*"]}));
        }
        json!({"Version": "2012-10-17", "Statement": statements})
    }

    /// The setting of the store, as the functions read it.
    #[must_use]
    pub fn store_setting(&self) -> Option<String> {
        let bucket = self.bucket.as_ref()?;
        Some(format!("s3://{bucket}/{}", self.prefix))
    }
}

impl Place {
    /// For a policy that is only shown.
    fn unknown() -> Self {
        let star = || "*".to_owned();
        Self { partition: "aws".to_owned(), region: star(), account: star() }
    }
}

fn actions(action: &Value) -> String {
    let names = action.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

/// Who may take the role of the functions.
#[must_use]
pub fn trust_policy() -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "lambda.amazonaws.com"}}]})
}

/// The name of the role of a deployment, and of its policy.
#[must_use]
pub fn role_name(prefix: &str) -> String {
    format!("{prefix}-worker")
}

/// The name of the group of the logs of a deployment.
#[must_use]
pub fn log_group(prefix: &str) -> String {
    format!("/foresail/{prefix}")
}

/// Checks a prefix: it becomes part of the names of functions, roles and log groups.
///
/// # Errors
/// [`DeployError`] with the prefix.
pub fn check_prefix(prefix: &str) -> Result<(), DeployError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if prefix.is_empty() || prefix.len() > PREFIX_LEN_MAX || !prefix.chars().all(is_legal) {
        return Err(DeployError::new(
            format!("the prefix `{prefix}` cannot begin the names of functions"),
            format!("use 1 to {PREFIX_LEN_MAX} letters, digits and `-`"),
        ));
    }
    Ok(())
}

fn check_zip(path: &PathBuf) -> Result<(), DeployError> {
    let shown = path.display();
    let hint = "`cargo lambda build --release --output-format zip` makes target/lambda/NAME/bootstrap.zip";
    let unread = |e: std::io::Error| DeployError::new(format!("package `{shown}` cannot be read: {e}"), hint);
    let mut file = std::fs::File::open(path).map_err(unread)?;
    let bytes = file.metadata().map_err(unread)?.len();
    let mut begin = [0; 4];
    // Source: APPNOTE.TXT of PKWARE, 4.3.7, the signature of a local file header.
    let is_zip = std::io::Read::read_exact(&mut file, &mut begin).is_ok() && begin == *b"PK\x03\x04";
    if !is_zip {
        return Err(DeployError::new(format!("package `{shown}` is no zip file"), hint));
    }
    if bytes > ZIP_BYTES_MAX {
        return Err(DeployError::new(
            format!("package `{shown}` has {bytes} bytes, at most {ZIP_BYTES_MAX} travel in a request"),
            "strip the program, or use a container image (--image)",
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn deployment() -> Deployment {
        Deployment {
            prefix: "foresail".to_owned(),
            memory_mb: vec![512, 1769],
            package: Package::Image("123.dkr.ecr.eu-west-1.amazonaws.com/foresail:1".to_owned()),
            processor: Processor::X86,
            bucket: None,
            redis: None,
            metad: Some("http://10.0.0.5:7070".to_owned()),
            token: None,
            subnets: Vec::new(),
            security_groups: Vec::new(),
        }
    }

    fn place() -> Place {
        let (partition, region) = ("aws".to_owned(), "eu-west-1".to_owned());
        Place { partition, region, account: "123456789012".to_owned() }
    }

    #[test]
    fn functions_may_invoke_each_other_at_the_alias_and_nothing_else() {
        let policy = deployment().policy(&place());
        assert_eq!(
            policy["Statement"][0]["Resource"],
            json!([
                "arn:aws:lambda:eu-west-1:123456789012:function:foresail-512:live",
                "arn:aws:lambda:eu-west-1:123456789012:function:foresail-1769:live"
            ])
        );
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 2);
        assert!(!policy.to_string().contains("\"*\""), "{policy}");
    }

    #[test]
    fn bucket_and_vpc_add_what_they_need_below_the_prefix_alone() {
        let bucket = Some("data".to_owned());
        let (subnets, security_groups) = (vec!["subnet-1".to_owned()], vec!["sg-1".to_owned()]);
        let with = Deployment { bucket, subnets, security_groups, ..deployment() };
        let policy = with.policy(&place());
        assert_eq!(policy["Statement"][2]["Resource"], json!(["arn:aws:s3:::data/foresail/*"]));
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn what_cannot_be_deployed_is_refused_by_its_value() {
        let told = |adjust: fn(&mut Deployment)| {
            let mut deployment = deployment();
            adjust(&mut deployment);
            let error = deployment.check().unwrap_err();
            format!("{}; hint: {}", error.what, error.hint)
        };
        deployment().check().unwrap();
        assert!(told(|d| d.memory_mb.push(64)).contains("`64` MB"));
        assert!(told(|d| d.memory_mb.clear()).contains("--memory"));
        assert!(told(|d| d.prefix = "a_b".to_owned()).contains("`a_b`"));
        assert!(told(|d| d.subnets.push("subnet-1".to_owned())).contains("--security-groups"));
        assert!(told(|d| d.package = Package::Zip("/no/such.zip".into())).contains("`/no/such.zip`"));
        let not_zip = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let mut wrong = deployment();
        wrong.package = Package::Zip(not_zip.into());
        assert!(wrong.check().unwrap_err().what.contains("is no zip file"));
    }
}
