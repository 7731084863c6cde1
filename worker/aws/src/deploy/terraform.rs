//! The same deployment as Terraform: for those who keep what they run as text. Written, not carried out.

use serde_json::{Value, json};

use super::{Deployment, EVENT_AGE_S_MAX, LOG_DAYS, Package, Place, TAG, TIMEOUT_S};
use super::{log_group, role_name, trust_policy};
use crate::host::ALIAS;
use crate::settings::{TOKEN_VARIABLE, environment};

/// The deployment in the language of Terraform, with the provider `hashicorp/aws`. The token is a variable,
/// so that it is not in the file.
#[must_use]
pub fn terraform(deployment: &Deployment) -> String {
    let place = Place {
        partition: "${data.aws_partition.current.partition}".to_owned(),
        region: "${data.aws_region.current.region}".to_owned(),
        account: "${data.aws_caller_identity.current.account_id}".to_owned(),
    };
    let prefix = &deployment.prefix;
    let sizes: Vec<String> = deployment.memory_mb.iter().map(|size| format!("\"{size}\"")).collect();
    let mut variables = environment(deployment);
    let has_token = variables.remove(TOKEN_VARIABLE).is_some();
    let mut of_function: Vec<(&str, String)> =
        variables.iter().map(|(name, value)| (*name, quoted(value))).collect();
    if has_token {
        of_function.push((TOKEN_VARIABLE, "var.metad_token".to_owned()));
    }
    let token = match has_token {
        true => "variable \"metad_token\" {\n  type      = string\n  sensitive = true\n}\n\n",
        false => "",
    };
    let function = function(deployment);
    let vpc = match deployment.subnets.is_empty() {
        true => String::new(),
        false => format!(
            "\n  vpc_config {{\n    subnet_ids         = {}\n    security_group_ids = {}\n  }}\n",
            list(&deployment.subnets),
            list(&deployment.security_groups)
        ),
    };
    format!(
        "# A deployment of Foresail on AWS Lambda, as `foresail deploy aws` makes it.\n\
         terraform {{\n  required_providers {{\n    \
         aws = {{ source = \"hashicorp/aws\", version = \">= 6.0\" }}\n  }}\n}}\n\n\
         data \"aws_partition\" \"current\" {{}}\ndata \"aws_region\" \"current\" {{}}\n\
         data \"aws_caller_identity\" \"current\" {{}}\n\n{token}\
         locals {{\n  memory_mb = toset([{sizes}])\n  tags      = {{ {tag} = {prefix_text} }}\n}}\n\n\
         resource \"aws_cloudwatch_log_group\" \"worker\" {{\n  name              = {group}\n  \
         retention_in_days = {LOG_DAYS}\n  tags              = local.tags\n}}\n\n\
         resource \"aws_iam_role\" \"worker\" {{\n  name = {role}\n  \
         assume_role_policy = jsonencode({trust})\n  tags = local.tags\n}}\n\n\
         resource \"aws_iam_role_policy\" \"worker\" {{\n  name = {role}\n  \
         role = aws_iam_role.worker.id\n  policy = jsonencode({policy})\n}}\n\n\
         resource \"aws_lambda_function\" \"worker\" {{\n{function}\n\n  \
         environment {{\n    variables = {{\n{of_function}\n    }}\n  }}\n\n  \
         logging_config {{\n    log_format = \"Text\"\n    \
         log_group  = aws_cloudwatch_log_group.worker.name\n  }}\n{vpc}\n  tags       = local.tags\n  \
         depends_on = [aws_iam_role_policy.worker]\n}}\n\n\
         resource \"aws_lambda_alias\" \"live\" {{\n  for_each         = aws_lambda_function.worker\n  \
         name             = \"{ALIAS}\"\n  function_name    = each.value.function_name\n  \
         function_version = each.value.version\n}}\n\n\
         resource \"aws_lambda_function_event_invoke_config\" \"live\" {{\n  \
         for_each                     = aws_lambda_alias.live\n  \
         function_name                = each.value.function_name\n  \
         qualifier                    = each.value.name\n  maximum_retry_attempts       = 0\n  \
         maximum_event_age_in_seconds = {EVENT_AGE_S_MAX}\n}}\n",
        sizes = sizes.join(", "),
        tag = quoted(TAG),
        prefix_text = quoted(prefix),
        group = quoted(&log_group(prefix)),
        role = quoted(&role_name(prefix)),
        trust = pretty(&trust_policy()),
        policy = pretty(&deployment.policy(&place)),
        of_function = aligned("      ", &of_function),
    )
}

/// What a function is, without its blocks.
fn function(deployment: &Deployment) -> String {
    let mut lines = vec![
        ("for_each", "local.memory_mb".to_owned()),
        ("function_name", format!("\"{}-${{each.value}}\"", deployment.prefix)),
        ("role", "aws_iam_role.worker.arn".to_owned()),
        ("memory_size", "tonumber(each.value)".to_owned()),
        ("timeout", TIMEOUT_S.to_string()),
        ("architectures", format!("[\"{}\"]", deployment.processor.as_str())),
        ("publish", "true".to_owned()),
    ];
    match &deployment.package {
        Package::Zip(path) => {
            let path = quoted(&path.display().to_string());
            lines.push(("runtime", "\"provided.al2023\"".to_owned()));
            lines.push(("handler", "\"bootstrap\"".to_owned()));
            lines.push(("source_code_hash", format!("filebase64sha256({path})")));
            lines.push(("filename", path));
        }
        Package::Image(image) => {
            lines.push(("package_type", "\"Image\"".to_owned()));
            lines.push(("image_uri", quoted(image)));
        }
    }
    aligned("  ", &lines)
}

/// Settings with their `=` below each other, as `terraform fmt` writes them.
fn aligned(indent: &str, lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = lines.iter().map(|(name, value)| format!("{indent}{name:width$} = {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// A string of Terraform, in which `${` and `%{` mean what they say. JSON escapes the rest alike.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace("${", "$${").replace("%{", "%%{")
}

fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    // As `terraform fmt` writes it; no text of a policy has this but after a name.
    text.replace('\n', "\n  ").replace("\": ", "\" : ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::tests::deployment;

    #[test]
    fn the_text_has_every_part_and_keeps_the_token_out() {
        let token = Some("very-secret".to_owned());
        let text = terraform(&Deployment { token, ..deployment() });
        for part in [
            "toset([\"512\", \"1769\"])",
            "\"foresail:deployment\" = \"foresail\"",
            "name = \"foresail-worker\"",
            "function_name = \"foresail-${each.value}\"",
            "FORESAIL_LAMBDA_MEMORY = \"512,1769\"",
            "FORESAIL_METAD_TOKEN   = var.metad_token",
            "maximum_retry_attempts       = 0",
            "function:foresail-512:live",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains("very-secret"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn what_looks_like_a_template_is_none() {
        assert_eq!(quoted("a ${b} \"c\""), r#""a $${b} \"c\"""#);
    }
}
