//! Destroys a deployment: all that carries its tag, the log groups that Lambda made for its functions, and
//! nothing else.

use aws_config::SdkConfig;
use aws_sdk_lambda::error::ProvideErrorMetadata;

use foresail_worker::data::s3::S3Settings;

use super::apply::{Clients, failed};
use super::{DeployError, Part, TAG, check_prefix, log_group, role_name};
use crate::settings::STORE_VARIABLE;

/// Destroys everything of the deployment with this prefix, of whatever sizes; gives what that was. Functions
/// first, so that nothing runs with a role that is gone.
///
/// # Errors
/// [`DeployError`] with the part that could not be destroyed; the same command goes on from there.
pub async fn destroy(config: &SdkConfig, prefix: &str) -> Result<Vec<Part>, DeployError> {
    check_prefix(prefix)?;
    let clients = Clients::new(config);
    let mut gone = Vec::new();
    for (name, _) in functions(&clients, prefix).await? {
        let deleted = clients.lambda.delete_function().function_name(&name).send().await;
        deleted.map_err(|e| failed(&format!("function `{name}`"), &e))?;
        destroy_default_logs(&clients, &name).await?;
        gone.push(part("function", name, "with its versions and its alias"));
    }
    gone.extend(destroy_role(&clients, prefix).await?);
    gone.extend(destroy_logs(&clients, prefix).await?);
    Ok(gone)
}

/// Where the functions of a deployment put large objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objects {
    /// No function is left that could say.
    Unknown,
    /// In no bucket.
    Nowhere,
    /// In this bucket.
    In(S3Settings),
}

/// Where the functions of a deployment put large objects, by what they are told.
///
/// # Errors
/// [`DeployError`] when the functions cannot be read.
pub async fn objects(config: &SdkConfig, prefix: &str) -> Result<Objects, DeployError> {
    check_prefix(prefix)?;
    let clients = Clients::new(config);
    let Some((name, _)) = functions(&clients, prefix).await?.into_iter().next() else {
        return Ok(Objects::Unknown);
    };
    let found = clients.lambda.get_function_configuration().function_name(&name).send().await;
    let found = found.map_err(|e| failed(&format!("function `{name}`"), &e))?;
    let variables = found.environment().and_then(|environment| environment.variables());
    match variables.and_then(|variables| variables.get(STORE_VARIABLE)) {
        Some(store) if store.starts_with("s3:") => {
            let hint = "name the bucket with --bucket";
            store.parse().map(Objects::In).map_err(|why: String| DeployError::new(why, hint))
        }
        _ => Ok(Objects::Nowhere),
    }
}

fn part(kind: &'static str, name: String, detail: &str) -> Part {
    Part { kind, name, detail: detail.to_owned() }
}

/// The functions that carry the tag of the deployment, with their memory in MB.
pub(super) async fn functions(clients: &Clients, prefix: &str) -> Result<Vec<(String, u32)>, DeployError> {
    let mut found = Vec::new();
    let mut pages = clients.lambda.list_functions().into_paginator().items().send();
    let begin = format!("{prefix}-");
    while let Some(function) = pages.next().await {
        let function = function.map_err(|e| failed("the functions of the account", &e))?;
        let (Some(name), Some(arn)) = (function.function_name(), function.function_arn()) else { continue };
        if !name.starts_with(&begin) {
            continue;
        }
        let tags = clients.lambda.list_tags().resource(arn).send().await;
        let tags = tags.map_err(|e| failed(&format!("the tags of function `{name}`"), &e))?;
        if tags.tags().and_then(|tags| tags.get(TAG)).is_some_and(|tag| tag == prefix) {
            found.push((name.to_owned(), u32::try_from(function.memory_size().unwrap_or(0)).unwrap_or(0)));
        }
    }
    Ok(found)
}

async fn destroy_role(clients: &Clients, prefix: &str) -> Result<Vec<Part>, DeployError> {
    let (iam, name) = (&clients.iam, role_name(prefix));
    let role = match iam.get_role().role_name(&name).send().await {
        Ok(found) => found,
        Err(error) if error.code() == Some("NoSuchEntity") => return Ok(Vec::new()),
        Err(error) => return Err(failed(&format!("role `{name}`"), &error)),
    };
    let tags = role.role().map(|role| role.tags()).unwrap_or_default();
    if !tags.iter().any(|tag| tag.key() == TAG && tag.value() == prefix) {
        return Ok(Vec::new());
    }
    match iam.delete_role_policy().role_name(&name).policy_name(&name).send().await {
        Err(error) if error.code() != Some("NoSuchEntity") => {
            return Err(failed(&format!("the policy of role `{name}`"), &error));
        }
        _ => {}
    }
    let deleted = iam.delete_role().role_name(&name).send().await;
    deleted.map_err(|e| failed(&format!("role `{name}`"), &e))?;
    Ok(vec![part("role", name, "with its policy")])
}

async fn destroy_logs(clients: &Clients, prefix: &str) -> Result<Vec<Part>, DeployError> {
    let group = log_group(prefix);
    match log_group_tag(clients, &group).await? {
        Some(tag) if tag.as_deref() == Some(prefix) => {
            let deleted = clients.logs.delete_log_group().log_group_name(&group).send().await;
            deleted.map_err(|e| failed(&format!("log group `{group}`"), &e))?;
            Ok(vec![part("log group", group, "with its logs")])
        }
        _ => Ok(Vec::new()),
    }
}

/// The group that a function writes to which is not told of another: there from before it was, or because
/// somebody invoked it otherwise.
async fn destroy_default_logs(clients: &Clients, function: &str) -> Result<(), DeployError> {
    let group = format!("/aws/lambda/{function}");
    match clients.logs.delete_log_group().log_group_name(&group).send().await {
        Err(error) if error.code() != Some("ResourceNotFoundException") => {
            Err(failed(&format!("log group `{group}`"), &error))
        }
        _ => Ok(()),
    }
}

/// The tag of a log group, where there is one; nothing where there is no such group.
pub(super) async fn log_group_tag(
    clients: &Clients,
    group: &str,
) -> Result<Option<Option<String>>, DeployError> {
    let what = format!("log group `{group}`");
    let found = clients.logs.describe_log_groups().log_group_name_prefix(group).send().await;
    let found = found.map_err(|e| failed(&what, &e))?;
    let Some(found) = found.log_groups().iter().find(|found| found.log_group_name() == Some(group)) else {
        return Ok(None);
    };
    // The older of the two forms of the ARN has `:*` at its end, which tags do not take.
    let arn = found.log_group_arn().or(found.arn()).unwrap_or_default().trim_end_matches(":*");
    let tags = clients.logs.list_tags_for_resource().resource_arn(arn).send().await;
    let tags = tags.map_err(|e| failed(&format!("the tags of {what}"), &e))?;
    Ok(Some(tags.tags().and_then(|tags| tags.get(TAG)).cloned()))
}
