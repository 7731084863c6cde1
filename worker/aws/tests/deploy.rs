//! Deployments against moto's server, which has the control planes of Lambda, IAM and CloudWatch Logs.
//!
//! Where moto is not installed the test is skipped, or fails, as `servers` says.

#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::config::Credentials;
use foresail_aws::deploy::{Deployment, Finding, Health, Package, Part, Processor, TAG, destroy, look, make};
use foresail_aws::limited;

#[path = "package.rs"]
mod package;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../client/tests/stores/servers.rs"]
mod servers;

/// An account that moto keeps.
struct Account {
    moto: servers::Moto,
    /// With a package.
    dir: tempfile::TempDir,
}

impl Account {
    /// An empty one; nothing where moto is not installed.
    fn new() -> Option<Self> {
        Some(Self { moto: servers::Moto::start()?, dir: package::in_a_directory() })
    }

    async fn config(&self) -> SdkConfig {
        let keys = Credentials::new("testing", "testing", None, None, "test");
        let loader = aws_config::defaults(BehaviorVersion::latest()).endpoint_url(self.moto.url());
        limited(loader.credentials_provider(keys).region(Region::new("eu-west-1"))).load().await
    }

    fn deployment(&self) -> Deployment {
        Deployment {
            prefix: "foresail".to_owned(),
            memory_mb: vec![512, 1769],
            package: Package::Zip(self.dir.path().join("bootstrap.zip")),
            processor: Processor::X86,
            bucket: Some("objects".to_owned()),
            redis: Some("redis://10.0.0.6".to_owned()),
            metad: Some("http://10.0.0.5:7070".to_owned()),
            token: Some("secret".to_owned()),
            subnets: Vec::new(),
            security_groups: Vec::new(),
        }
    }
}

/// Everything of this kind that the account has, whoever made it.
async fn left(config: &SdkConfig) -> Vec<String> {
    let mut names = Vec::new();
    let functions = aws_sdk_lambda::Client::new(config).list_functions().send().await.unwrap();
    names.extend(functions.functions().iter().filter_map(|f| f.function_name()).map(str::to_owned));
    let roles = aws_sdk_iam::Client::new(config).list_roles().send().await.unwrap();
    names.extend(roles.roles().iter().map(|role| role.role_name().to_owned()));
    let groups = aws_sdk_cloudwatchlogs::Client::new(config).describe_log_groups().send().await.unwrap();
    names.extend(groups.log_groups().iter().filter_map(|g| g.log_group_name()).map(str::to_owned));
    names.sort();
    names
}

fn names(parts: &[Part]) -> Vec<String> {
    let mut names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    names.sort();
    names
}

fn broken(found: &[Finding]) -> Vec<&Finding> {
    found.iter().filter(|finding| finding.health == Health::Broken).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn what_deploy_makes_the_doctor_finds_well_and_destroy_takes_away() {
    let Some(moto) = Account::new() else { return };
    block_on(async {
        let config = moto.config().await;
        let before = left(&config).await;
        let made = make(&config, &moto.deployment()).await.unwrap();
        assert_eq!(made, moto.deployment().parts(), "a dry run names what is made");
        let found = look(&config, "foresail").await.unwrap();
        assert!(broken(&found).is_empty(), "{found:#?}");
        assert_eq!(found.len(), 2 + 2 * 3);
        let gone = names(&destroy(&config, "foresail").await.unwrap());
        assert_eq!(gone, ["/foresail/foresail", "foresail-1769", "foresail-512", "foresail-worker"]);
        assert_eq!(left(&config).await, before);
        assert!(destroy(&config, "foresail").await.unwrap().is_empty(), "a second time there is nothing");
    });
}

#[test]
fn functions_are_what_was_asked_for() {
    let Some(moto) = Account::new() else { return };
    block_on(async {
        let config = moto.config().await;
        make(&config, &moto.deployment()).await.unwrap();
        let lambda = aws_sdk_lambda::Client::new(&config);
        let function = lambda.get_function().function_name("foresail-1769").send().await.unwrap();
        assert_eq!(function.tags().unwrap()[TAG], "foresail");
        let set = function.configuration().unwrap();
        assert_eq!((set.memory_size(), set.timeout()), (Some(1769), Some(900)));
        assert_eq!((set.handler(), set.runtime().unwrap().as_str()), (Some("bootstrap"), "provided.al2023"));
        let variables: BTreeMap<_, _> = set.environment().unwrap().variables().unwrap().iter().collect();
        let of = |name: &str| variables[&name.to_owned()].as_str();
        assert_eq!((of("FORESAIL_LAMBDA_PREFIX"), of("FORESAIL_LAMBDA_MEMORY")), ("foresail", "512,1769"));
        assert_eq!((of("FORESAIL_METAD_TOKEN"), of("FORESAIL_COORDINATION")), ("secret", "redis://10.0.0.6"));
        let events =
            lambda.get_function_event_invoke_config().function_name("foresail-512").qualifier("live");
        assert_eq!(events.send().await.unwrap().maximum_retry_attempts(), Some(0));
        let policy = aws_sdk_iam::Client::new(&config).get_role_policy();
        let policy = policy.role_name("foresail-worker").policy_name("foresail-worker").send().await.unwrap();
        assert!(policy.policy_document().contains("function%3Aforesail-512%3Alive"), "{policy:?}");
    });
}

#[test]
fn the_same_twice_changes_nothing_and_another_package_moves_the_alias() {
    let Some(moto) = Account::new() else { return };
    block_on(async {
        let config = moto.config().await;
        make(&config, &moto.deployment()).await.unwrap();
        let before = left(&config).await;
        make(&config, &moto.deployment()).await.unwrap();
        assert_eq!(left(&config).await, before);
        let found = look(&config, "foresail").await.unwrap();
        assert!(broken(&found).is_empty(), "{found:#?}");
    });
}

#[test]
fn what_somebody_else_made_is_neither_changed_nor_destroyed() {
    let Some(moto) = Account::new() else { return };
    block_on(async {
        let config = moto.config().await;
        let other = Deployment { prefix: "other".to_owned(), ..moto.deployment() };
        make(&config, &other).await.unwrap();
        let lambda = aws_sdk_lambda::Client::new(&config);
        let arn = lambda.get_function().function_name("other-512").send().await.unwrap();
        let arn = arn.configuration().unwrap().function_arn().unwrap().to_owned();
        lambda.untag_resource().resource(arn).tag_keys(TAG).send().await.unwrap();
        let error = make(&config, &other).await.unwrap_err();
        assert!(error.what.contains("a function `other-512` already"), "{error}");
        assert!(destroy(&config, "foresail").await.unwrap().is_empty());
        let gone = names(&destroy(&config, "other").await.unwrap());
        assert_eq!(gone, ["/foresail/other", "other-1769", "other-worker"]);
        assert!(left(&config).await.contains(&"other-512".to_owned()));
    });
}

#[test]
fn the_doctor_names_what_is_missing() {
    let Some(moto) = Account::new() else { return };
    block_on(async {
        let config = moto.config().await;
        let found = look(&config, "foresail").await.unwrap();
        let wrong: Vec<&str> = broken(&found).iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            wrong,
            ["role `foresail-worker`", "log group `/foresail/foresail`", "functions `foresail-…`"]
        );
        make(&config, &moto.deployment()).await.unwrap();
        let lambda = aws_sdk_lambda::Client::new(&config);
        lambda.delete_alias().function_name("foresail-512").name("live").send().await.unwrap();
        let found = look(&config, "foresail").await.unwrap();
        assert!(broken(&found).iter().any(|f| f.what == "alias `foresail-512:live`"), "{found:#?}");
    });
}
