//! `foresail deploy aws`, `foresail doctor aws`, `foresail destroy aws`.

use foresail_aws::deploy::{self, DeployError, Deployment, Finding, Health, Objects, Package, Part};
use foresail_aws::{connect, deploy::terraform};
use foresail_worker::data::s3::{self, S3Settings};
use serde::Serialize;

use super::args::{
    DeployArgs, DeployAwsArgs, DeployTo, DestroyArgs, DestroyAwsArgs, DestroyOn, DoctorArgs, Global, OnAws,
    Processor, Which,
};
use super::error::CliError;
use super::render::{self, Table};
use super::terminal::Terminal;

impl From<DeployError> for CliError {
    fn from(DeployError { what, hint }: DeployError) -> Self {
        Self::input(what, hint)
    }
}

/// What is shown of a deployment.
#[derive(Debug, Serialize)]
struct Shown {
    prefix: String,
    parts: Vec<Part>,
}

/// Makes a deployment, or shows or writes what it would be.
///
/// # Errors
/// [`CliError`] when it cannot be, or a part cannot be made.
pub async fn deploy(global: &Global, args: &DeployArgs, terminal: &Terminal) -> Result<(), CliError> {
    let DeployTo::Aws(args) = &args.platform;
    let deployment = deployment(global, args);
    deployment.check()?;
    if args.emit.is_some() {
        return Ok(render::text(&terraform(&deployment))?);
    }
    let parts = match args.dry_run {
        true => {
            terminal.say("nothing is made; this would be");
            deployment.parts()
        }
        false => {
            let config = connect(args.which.region.as_deref()).await;
            deploy::make(&config, &deployment).await?
        }
    };
    show(global, deployment.prefix, parts)?;
    if !args.dry_run {
        let sizes: Vec<String> = args.memory.iter().map(u32::to_string).collect();
        let prefix = &args.which.prefix;
        terminal.say(&format!(
            "`foresail doctor aws --prefix {prefix}` looks at it; \
             `foresail up --host lambda --prefix {prefix} --memory {}` uses it",
            sizes.join(",")
        ));
    }
    Ok(())
}

/// Looks at a deployment.
///
/// # Errors
/// [`CliError::Broken`] when something is not as it shall be.
pub async fn doctor(global: &Global, args: &DoctorArgs) -> Result<(), CliError> {
    let OnAws::Aws(Which { prefix, region }) = &args.platform;
    let found = deploy::look(&connect(region.as_deref()).await, prefix).await?;
    render::many(global.format, &found, || findings(&found))?;
    match found.iter().filter(|finding| finding.health == Health::Broken).count() {
        0 => Ok(()),
        broken => Err(CliError::Broken(broken)),
    }
}

/// Destroys a deployment, and what lies below its prefix in a bucket where that is asked for.
///
/// # Errors
/// [`CliError`] when a part cannot be destroyed.
pub async fn destroy(global: &Global, args: &DestroyArgs, terminal: &Terminal) -> Result<(), CliError> {
    let DestroyOn::Aws(DestroyAwsArgs { which: Which { prefix, region }, objects, bucket }) = &args.platform;
    let config = connect(region.as_deref()).await;
    // Asked before the functions go, which know it.
    let place = match bucket {
        Some(bucket) => Objects::In(in_bucket(bucket, prefix)?),
        None => deploy::objects(&config, prefix).await?,
    };
    if *objects && place == Objects::Unknown {
        return Err(CliError::input(
            format!("no function of deployment `{prefix}` is left that names its bucket"),
            "name it with --bucket, or leave --objects out",
        ));
    }
    let mut gone = deploy::destroy(&config, prefix).await?;
    if gone.is_empty() {
        terminal.say(&format!("there was nothing with the tag `{}` = `{prefix}`", deploy::TAG));
    }
    match (place, objects) {
        (Objects::In(place), true) => gone.push(clear(place, region.clone()).await?),
        (Objects::In(place), false) => {
            let bucket = &place.bucket;
            terminal.say(&format!(
                "what lies in {place} stays; `foresail destroy aws --prefix {prefix} --objects --bucket \
                 {bucket}` deletes it"
            ));
        }
        (Objects::Nowhere, true) => terminal.say("its large objects were blobs of metad: no bucket has any"),
        (Objects::Nowhere | Objects::Unknown, _) => {}
    }
    Ok(show(global, prefix.clone(), gone)?)
}

/// Where the functions of a deployment put objects in this bucket.
fn in_bucket(bucket: &str, prefix: &str) -> Result<S3Settings, CliError> {
    let hint = "--bucket takes the name of a bucket alone";
    format!("s3://{bucket}/{prefix}").parse().map_err(|why: String| CliError::input(why, hint))
}

/// Deletes what lies there.
async fn clear(place: S3Settings, region: Option<String>) -> Result<Part, CliError> {
    let name = place.to_string();
    let settings = S3Settings { region: place.region.clone().or(region), ..place };
    let hint =
        "are credentials and region right, and may they list and delete there? the same command goes on";
    let failed = |why: String| CliError::input(format!("what lies in {name} cannot be deleted: {why}"), hint);
    let cleared = tokio::task::spawn_blocking(move || s3::clear(&settings)).await;
    let count = cleared.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    Ok(Part { kind: "objects", name, detail: format!("{count} objects") })
}

fn deployment(global: &Global, args: &DeployAwsArgs) -> Deployment {
    let mut memory_mb = args.memory.clone();
    memory_mb.sort_unstable();
    memory_mb.dedup();
    let image = args.image.clone().map(Package::Image);
    Deployment {
        prefix: args.which.prefix.clone(),
        memory_mb,
        package: image.unwrap_or_else(|| Package::Zip(args.package.clone().unwrap_or_default())),
        processor: match args.processor {
            Processor::X86 => deploy::Processor::X86,
            Processor::Arm => deploy::Processor::Arm,
        },
        bucket: args.bucket.clone(),
        redis: args.redis.clone(),
        metad: global.metad.clone(),
        token: global.token.clone(),
        subnets: args.subnets.clone(),
        security_groups: args.security_groups.clone(),
    }
}

fn show(global: &Global, prefix: String, parts: Vec<Part>) -> std::io::Result<()> {
    let shown = Shown { prefix, parts };
    render::one(global.format, &shown, || {
        let mut table = Table::new(&["part", "name", "detail"]);
        for Part { kind, name, detail } in &shown.parts {
            table.row([(*kind).to_owned(), name.clone(), detail.clone()]);
        }
        table.to_string()
    })
}

fn findings(found: &[Finding]) -> String {
    let mut table = Table::new(&["part", "is", "detail", "hint"]);
    for Finding { what, health, detail, hint } in found {
        let health = match health {
            Health::Good => "good",
            Health::Broken => "broken",
        };
        table.row([what.clone(), health.to_owned(), detail.clone(), hint.clone()]);
    }
    table.to_string()
}
