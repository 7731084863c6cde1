//! Makes a deployment: what is not there is made, what is there is brought up to date, so that the same
//! command twice changes nothing.

use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture, Environment, FunctionCode, LastUpdateStatus, LogFormat, LoggingConfig, PackageType,
    Runtime, State, VpcConfig,
};

use super::remove::log_group_tag;
use super::{
    DeployError, Deployment, EVENT_AGE_S_MAX, LOG_DAYS, Package, Part, Place, Processor, TAG, TIMEOUT_S,
    log_group, role_name, trust_policy,
};
use crate::host::{ALIAS, function_name};
use crate::settings::environment;

/// How long Lambda may take to believe in a new role, and to make a function ready (a VPC takes longest).
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The clients of a deployment.
pub(super) struct Clients {
    pub iam: aws_sdk_iam::Client,
    pub lambda: aws_sdk_lambda::Client,
    pub logs: aws_sdk_cloudwatchlogs::Client,
}

impl Clients {
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            iam: aws_sdk_iam::Client::new(config),
            lambda: aws_sdk_lambda::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
        }
    }
}

/// Makes everything, in the order of [`Deployment::parts`].
///
/// # Errors
/// [`DeployError`] with the part that could not be made; what stands by then stays, and the same
/// command goes on from there.
pub async fn make(config: &SdkConfig, deployment: &Deployment) -> Result<Vec<Part>, DeployError> {
    deployment.check()?;
    let region = config.region().ok_or_else(no_region)?.to_string();
    let making = Making { clients: Clients::new(config), deployment };
    making.logs().await?;
    let role = making.role().await?;
    making.policy(&place(&role, region)?).await?;
    let code = making.code()?;
    for memory_mb in &deployment.memory_mb {
        making.function(*memory_mb, &role, &code).await?;
    }
    Ok(deployment.parts())
}

struct Making<'a> {
    clients: Clients,
    deployment: &'a Deployment,
}

/// What goes into a function.
struct Code {
    zip: Option<Blob>,
    image: Option<String>,
}

impl Making<'_> {
    fn prefix(&self) -> &str {
        &self.deployment.prefix
    }

    async fn logs(&self) -> Result<(), DeployError> {
        let (logs, group) = (&self.clients.logs, log_group(self.prefix()));
        let made = logs.create_log_group().log_group_name(&group).tags(TAG, self.prefix()).send().await;
        match made {
            Err(error) if is_there(error.code()) => {
                let tag = log_group_tag(&self.clients, &group).await?.flatten();
                self.own("log group", &group, tag.as_ref())?;
            }
            made => {
                made.map_err(|e| failed(&format!("log group `{group}`"), &e))?;
            }
        }
        let kept =
            logs.put_retention_policy().log_group_name(&group).retention_in_days(LOG_DAYS).send().await;
        kept.map(drop).map_err(|e| failed(&format!("the retention of log group `{group}`"), &e))
    }

    /// Makes the role; gives its ARN.
    async fn role(&self) -> Result<String, DeployError> {
        let (iam, name) = (&self.clients.iam, role_name(self.prefix()));
        let tag = aws_sdk_iam::types::Tag::builder().key(TAG).value(self.prefix()).build();
        let tag =
            tag.map_err(|e| DeployError::new(format!("the tag of the role: {e}"), "use another --prefix"))?;
        let made = iam
            .create_role()
            .role_name(&name)
            .assume_role_policy_document(trust_policy().to_string())
            .description("Workers of Foresail")
            .tags(tag)
            .send()
            .await;
        match made {
            Ok(made) => Ok(made.role().map(|role| role.arn().to_owned()).unwrap_or_default()),
            Err(error) if is_there(error.code()) => {
                let role = iam.get_role().role_name(&name).send().await;
                let role = role.map_err(|e| failed(&format!("role `{name}`"), &e))?;
                let role = role.role().ok_or_else(|| missing("role", &name))?;
                let tag = role.tags().iter().find(|tag| tag.key() == TAG).map(|tag| tag.value().to_owned());
                self.own("role", &name, tag.as_ref())?;
                Ok(role.arn().to_owned())
            }
            Err(error) => Err(failed(&format!("role `{name}`"), &error)),
        }
    }

    async fn policy(&self, place: &Place) -> Result<(), DeployError> {
        let name = role_name(self.prefix());
        let document = self.deployment.policy(place).to_string();
        let put = self.clients.iam.put_role_policy().role_name(&name).policy_name(&name);
        let put = put.policy_document(document).send().await;
        put.map(drop).map_err(|e| failed(&format!("the policy of role `{name}`"), &e))
    }

    fn code(&self) -> Result<Code, DeployError> {
        match &self.deployment.package {
            Package::Zip(path) => {
                let unread =
                    |e| DeployError::new(format!("package `{}`: {e}", path.display()), "is it a file?");
                Ok(Code { zip: Some(Blob::new(std::fs::read(path).map_err(unread)?)), image: None })
            }
            Package::Image(image) => Ok(Code { zip: None, image: Some(image.clone()) }),
        }
    }

    async fn function(&self, memory_mb: u32, role: &str, code: &Code) -> Result<(), DeployError> {
        let name = function_name(self.prefix(), memory_mb);
        let ends = Instant::now() + READY_LIMIT;
        loop {
            match self.create(&name, memory_mb, role, code).await {
                Ok(_) => break,
                Err(error) if is_there(error.code()) => {
                    self.own_function(&name).await?;
                    self.update(&name, memory_mb, role, code, ends).await?;
                    break;
                }
                // Source: IAM user guide, eventual consistency: a role is believed in after some seconds.
                Err(error) if is_unbelieved(&error) && Instant::now() < ends => {
                    tracing::info!("Lambda does not know role `{role}` yet");
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                Err(error) => return Err(failed(&format!("function `{name}`"), &error)),
            }
        }
        self.ready(&name, ends).await?;
        self.alias(&name).await
    }

    async fn create(
        &self,
        name: &str,
        memory_mb: u32,
        role: &str,
        code: &Code,
    ) -> Result<
        aws_sdk_lambda::operation::create_function::CreateFunctionOutput,
        SdkError<aws_sdk_lambda::operation::create_function::CreateFunctionError>,
    > {
        let asked = self.clients.lambda.create_function().function_name(name).role(role);
        let asked = match code.image {
            Some(_) => asked.package_type(PackageType::Image),
            None => asked.runtime(Runtime::Providedal2023).handler("bootstrap"),
        };
        let of_function = FunctionCode::builder().set_zip_file(code.zip.clone());
        asked
            .code(of_function.set_image_uri(code.image.clone()).build())
            .architectures(self.architecture())
            .memory_size(memory_mb as i32)
            .timeout(TIMEOUT_S as i32)
            .environment(self.environment())
            .set_vpc_config(self.vpc())
            .logging_config(self.logging())
            .tags(TAG, self.prefix())
            .send()
            .await
    }

    /// Brings a function up to date; each step waits for the last.
    async fn update(
        &self,
        name: &str,
        memory_mb: u32,
        role: &str,
        code: &Code,
        ends: Instant,
    ) -> Result<(), DeployError> {
        let asked = self.clients.lambda.update_function_code().function_name(name);
        let asked = asked.set_zip_file(code.zip.clone()).set_image_uri(code.image.clone());
        let updated = asked.architectures(self.architecture()).send().await;
        updated.map_err(|e| failed(&format!("the code of function `{name}`"), &e))?;
        self.ready(name, ends).await?;
        let asked = self.clients.lambda.update_function_configuration().function_name(name).role(role);
        let updated = asked
            .memory_size(memory_mb as i32)
            .timeout(TIMEOUT_S as i32)
            .environment(self.environment())
            .set_vpc_config(self.vpc())
            .logging_config(self.logging())
            .send()
            .await;
        updated.map(drop).map_err(|e| failed(&format!("the configuration of function `{name}`"), &e))
    }

    /// Waits until a function can be invoked and changed.
    async fn ready(&self, name: &str, ends: Instant) -> Result<(), DeployError> {
        loop {
            let found = self.clients.lambda.get_function_configuration().function_name(name).send().await;
            let found = found.map_err(|e| failed(&format!("function `{name}`"), &e))?;
            let is_updated = !matches!(
                found.last_update_status(),
                Some(LastUpdateStatus::InProgress | LastUpdateStatus::Failed)
            );
            let is_failed = found.state() == Some(&State::Failed)
                || found.last_update_status() == Some(&LastUpdateStatus::Failed);
            if is_failed {
                let why = found.state_reason().or(found.last_update_status_reason()).unwrap_or("no reason");
                return Err(DeployError::new(
                    format!("function `{name}` cannot run: {why}"),
                    "look at its package and its VPC",
                ));
            }
            if is_updated && found.state().is_none_or(|state| *state == State::Active) {
                return Ok(());
            }
            if Instant::now() > ends {
                let what = format!("function `{name}` is not ready after {} s", READY_LIMIT.as_secs());
                return Err(DeployError::new(what, "the same command goes on from here"));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Publishes what the function is now, points the alias there, and keeps Lambda from running a failed
    /// invocation again: what follows a failure the run decides.
    async fn alias(&self, name: &str) -> Result<(), DeployError> {
        let lambda = &self.clients.lambda;
        let version = lambda.publish_version().function_name(name).send().await;
        let version = version.map_err(|e| failed(&format!("a version of function `{name}`"), &e))?;
        let version = version.version().unwrap_or("$LATEST").to_owned();
        let made = lambda.create_alias().function_name(name).name(ALIAS).function_version(&version);
        match made.send().await {
            Ok(_) => {}
            Err(error) if is_there(error.code()) => {
                let moved = lambda.update_alias().function_name(name).name(ALIAS).function_version(&version);
                moved.send().await.map_err(|e| failed(&format!("alias `{name}:{ALIAS}`"), &e))?;
            }
            Err(error) => return Err(failed(&format!("alias `{name}:{ALIAS}`"), &error)),
        }
        let config = lambda.put_function_event_invoke_config().function_name(name).qualifier(ALIAS);
        let config = config.maximum_retry_attempts(0).maximum_event_age_in_seconds(EVENT_AGE_S_MAX);
        let put = config.send().await;
        put.map(drop).map_err(|e| failed(&format!("how events of `{name}` are retried"), &e))
    }

    async fn own_function(&self, name: &str) -> Result<(), DeployError> {
        let found = self.clients.lambda.get_function().function_name(name).send().await;
        let found = found.map_err(|e| failed(&format!("function `{name}`"), &e))?;
        self.own("function", name, found.tags().and_then(|tags| tags.get(TAG)))
    }

    /// What somebody else made is not touched.
    fn own(&self, kind: &str, name: &str, tag: Option<&String>) -> Result<(), DeployError> {
        match tag {
            Some(tag) if tag == self.prefix() => Ok(()),
            _ => Err(DeployError::new(
                format!("there is a {kind} `{name}` already, without the tag `{TAG}` = `{}`", self.prefix()),
                "choose another --prefix",
            )),
        }
    }

    fn architecture(&self) -> Architecture {
        match self.deployment.processor {
            Processor::X86 => Architecture::X8664,
            Processor::Arm => Architecture::Arm64,
        }
    }

    fn environment(&self) -> Environment {
        let variables = environment(self.deployment).into_iter();
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Environment::builder().set_variables(Some(variables.collect())).build()
    }

    fn vpc(&self) -> Option<VpcConfig> {
        let Deployment { subnets, security_groups, .. } = self.deployment;
        let vpc = VpcConfig::builder().set_subnet_ids(Some(subnets.clone()));
        (!subnets.is_empty()).then(|| vpc.set_security_group_ids(Some(security_groups.clone())).build())
    }

    fn logging(&self) -> LoggingConfig {
        LoggingConfig::builder().log_format(LogFormat::Text).log_group(log_group(self.prefix())).build()
    }
}

/// Whether a refusal says that there is one already.
fn is_there(code: Option<&str>) -> bool {
    let known = ["EntityAlreadyExists", "ResourceAlreadyExistsException", "ResourceConflictException"];
    // What moto's server says of an alias.
    code.is_some_and(|code| known.contains(&code) || code == "ConflictException")
}

fn is_unbelieved<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code() == Some("InvalidParameterValueException")
        && error.message().is_some_and(|text| text.contains("cannot be assumed"))
}

fn no_region() -> DeployError {
    DeployError::new("no region is named", "give --region or set AWS_REGION")
}

fn missing(kind: &str, name: &str) -> DeployError {
    DeployError::new(format!("there is no {kind} `{name}`"), "`foresail deploy aws` makes it")
}

/// Account and partition stand in the ARN of a role: `arn:aws:iam::123456789012:role/name`.
fn place(role: &str, region: String) -> Result<Place, DeployError> {
    let parts: Vec<&str> = role.split(':').collect();
    match parts.as_slice() {
        ["arn", partition, "iam", _, account, ..] => {
            Ok(Place { partition: (*partition).to_owned(), region, account: (*account).to_owned() })
        }
        _ => Err(DeployError::new(
            format!("the role has an ARN that cannot be read: `{role}`"),
            "please report it",
        )),
    }
}

/// What a failed request means for the deployment.
pub(super) fn failed<E>(what: &str, error: &SdkError<E>) -> DeployError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let told = match (error.code(), error.message()) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or("no text")),
        _ => crate::in_words(error),
    };
    let hint = match status {
        Some(401 | 403) => "who deploys needs the rights in docs/aws.md; are these the right credentials?",
        Some(429) => "wait a moment; the same command goes on from here",
        Some(_) => "the same command goes on from here",
        None => "are region, credentials and network right? AWS_ENDPOINT_URL names another endpoint",
    };
    DeployError::new(format!("{what}: {told}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_and_partition_are_those_of_the_role() {
        let place =
            place("arn:aws-cn:iam::123456789012:role/foresail-worker", "cn-north-1".to_owned()).unwrap();
        assert_eq!((place.partition.as_str(), place.account.as_str()), ("aws-cn", "123456789012"));
        assert!(super::place("no role", String::new()).unwrap_err().what.contains("`no role`"));
    }
}
