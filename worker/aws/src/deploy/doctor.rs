//! Looks at a deployment: what stands, what is missing, whether it can be invoked. Changes nothing and
//! invokes nothing.

use aws_config::SdkConfig;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::types::State;
use serde::Serialize;

use super::apply::{Clients, failed};
use super::remove::functions;
use super::{DeployError, TAG, check_prefix, log_group, role_name};
use crate::host::{ALIAS, LambdaHost, LambdaSettings};
use crate::settings::MEMORY_VARIABLE;

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it shall be.
    Good,
    /// Not so; nothing runs until it is mended.
    Broken,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub health: Health,
    /// What was seen.
    pub detail: String,
    /// What to do about it, where there is something to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Looks at the deployment with this prefix.
///
/// # Errors
/// [`DeployError`] when nothing can be looked at: no credentials, no network, a prefix that is none.
pub async fn look(config: &SdkConfig, prefix: &str) -> Result<Vec<Finding>, DeployError> {
    check_prefix(prefix)?;
    let clients = Clients::new(config);
    let functions = functions(&clients, prefix).await?;
    let mut found = vec![role(&clients, prefix).await?, logs(&clients, prefix).await?];
    if functions.is_empty() {
        let what = format!("functions `{prefix}-…`");
        found.push(broken(what, format!("none with the tag `{TAG}` = `{prefix}`"), DEPLOY));
    }
    let sizes: Vec<u32> = functions.iter().map(|(_, memory_mb)| *memory_mb).collect();
    for (name, memory_mb) in &functions {
        found.push(function(&clients, name, *memory_mb, &sizes).await?);
        found.push(alias(&clients, name).await?);
        found.push(may_invoke(config, prefix, *memory_mb).await);
    }
    Ok(found)
}

/// What mends most.
const DEPLOY: &str = "`foresail deploy aws` makes it, and mends it where it is there";

fn good(what: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { what: what.into(), health: Health::Good, detail: detail.into(), hint: String::new() }
}

fn broken(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { what: what.into(), health: Health::Broken, detail: detail.into(), hint: hint.into() }
}

async fn role(clients: &Clients, prefix: &str) -> Result<Finding, DeployError> {
    let (name, what) = (role_name(prefix), format!("role `{}`", role_name(prefix)));
    match clients.iam.get_role_policy().role_name(&name).policy_name(&name).send().await {
        Ok(_) => Ok(good(what, "there, with its policy")),
        Err(error) if error.code() == Some("NoSuchEntity") => {
            Ok(broken(what, "it, or its policy, is missing", DEPLOY))
        }
        Err(error) => Err(failed(&what, &error)),
    }
}

async fn logs(clients: &Clients, prefix: &str) -> Result<Finding, DeployError> {
    let (group, what) = (log_group(prefix), format!("log group `{}`", log_group(prefix)));
    let found = clients.logs.describe_log_groups().log_group_name_prefix(&group).send().await;
    let found = found.map_err(|e| failed(&what, &e))?;
    match found.log_groups().iter().find(|found| found.log_group_name() == Some(&group)) {
        Some(found) => {
            let days = found.retention_in_days().map_or("for ever".to_owned(), |days| format!("{days} days"));
            Ok(good(what, format!("kept {days}")))
        }
        None => Ok(broken(what, "missing: the functions cannot write logs", DEPLOY)),
    }
}

async fn function(
    clients: &Clients,
    name: &str,
    memory_mb: u32,
    sizes: &[u32],
) -> Result<Finding, DeployError> {
    let what = format!("function `{name}`");
    let found = clients.lambda.get_function_configuration().function_name(name).send().await;
    let found = found.map_err(|e| failed(&what, &e))?;
    if let Some(state) = found.state().filter(|state| **state != State::Active && **state != State::Inactive)
    {
        let why = found.state_reason().unwrap_or("no reason is given");
        return Ok(broken(what, format!("{}: {why}", state.as_str()), DEPLOY));
    }
    let variables = found.environment().and_then(|environment| environment.variables());
    let known = variables.and_then(|variables| variables.get(MEMORY_VARIABLE)).cloned().unwrap_or_default();
    let knows = |size: &u32| known.split(',').any(|text| text == size.to_string());
    match sizes.iter().find(|size| !knows(size)) {
        Some(other) => {
            let detail =
                format!("it does not know of the function of {other} MB ({MEMORY_VARIABLE} is `{known}`)");
            Ok(broken(what, detail, "deploy all sizes together: --memory 512,1769,…"))
        }
        None => {
            let timeout_s = found.timeout().unwrap_or(0);
            Ok(good(what, format!("{memory_mb} MB, ends after {timeout_s} s")))
        }
    }
}

async fn alias(clients: &Clients, name: &str) -> Result<Finding, DeployError> {
    let what = format!("alias `{name}:{ALIAS}`");
    match clients.lambda.get_alias().function_name(name).name(ALIAS).send().await {
        Ok(alias) => Ok(good(what, format!("version {}", alias.function_version().unwrap_or("unknown")))),
        Err(error) if error.code() == Some("ResourceNotFoundException") => {
            Ok(broken(what, "missing: it is what is invoked", DEPLOY))
        }
        Err(error) => Err(failed(&what, &error)),
    }
}

async fn may_invoke(config: &SdkConfig, prefix: &str, memory_mb: u32) -> Finding {
    let what = format!("right to invoke `{}`", crate::host::function_name(prefix, memory_mb));
    let settings = LambdaSettings { prefix: prefix.to_owned(), memory_mb: vec![memory_mb] };
    match LambdaHost::new(config, settings).dry_run().await {
        Ok(()) => good(what, "these credentials may"),
        Err(error) => broken(what, error.to_string(), "see the text"),
    }
}
