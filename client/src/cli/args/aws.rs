//! What can be typed after `deploy`, `doctor` and `destroy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `foresail deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail deploy aws --memory 512,1769,3538 --package bootstrap.zip --dry-run\n  \
    foresail deploy aws --memory 1769 --package bootstrap.zip --emit terraform > foresail.tf\n\n\
    docs/aws.md goes through it step by step.")]
pub struct DeployArgs {
    /// Where.
    #[command(subcommand)]
    pub platform: DeployTo,
}

/// Platforms that can be deployed to.
#[derive(Debug, Subcommand)]
pub enum DeployTo {
    /// AWS Lambda: a function per memory size, their role and their logs.
    Aws(Box<DeployAwsArgs>),
}

/// `foresail deploy aws`.
#[derive(Debug, Args)]
pub struct DeployAwsArgs {
    /// Memory sizes in MB, separated by commas; one function each.
    #[arg(long, value_name = "MB,...", value_delimiter = ',', required = true)]
    pub memory: Vec<u32>,
    /// A zip file with the program of the worker under the name `bootstrap`.
    #[arg(long, value_name = "FILE", required_unless_present = "image", conflicts_with = "image")]
    pub package: Option<PathBuf>,
    /// A container image in ECR, for instance with Python.
    #[arg(long, value_name = "URI")]
    pub image: Option<String>,
    /// The processor that it was built for.
    #[arg(long, value_enum, default_value_t = Processor::X86)]
    pub processor: Processor,
    /// Bucket for objects too large for a commit record [default: blobs of metad].
    #[arg(long, value_name = "NAME")]
    pub bucket: Option<String>,
    /// Address of Redis, where the state of runs is kept there.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Subnets of a VPC, separated by commas, where metad or Redis is to be reached there.
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    pub subnets: Vec<String>,
    /// Security groups in it, separated by commas.
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    pub security_groups: Vec<String>,
    /// Begin of all names.
    #[command(flatten)]
    pub which: Which,
    /// Only shows what would be made; asks nothing of AWS.
    #[arg(long, conflicts_with = "emit")]
    pub dry_run: bool,
    /// Writes the deployment in this language to stdout instead of making it.
    #[arg(long, value_enum)]
    pub emit: Option<Emit>,
}

/// Which deployment.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Begin of all names.
    #[arg(long, default_value = "foresail", value_name = "NAME")]
    pub prefix: String,
    /// The region [default: that of the environment and the shared files].
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
}

/// Processors of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Processor {
    /// x86_64.
    X86,
    /// arm64 (Graviton).
    Arm,
}

/// Languages that a deployment is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// Terraform, with the provider `hashicorp/aws`.
    Terraform,
}

/// `foresail doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where.
    #[command(subcommand)]
    pub platform: OnAws,
}

/// Platforms that are deployed to.
#[derive(Debug, Subcommand)]
pub enum OnAws {
    /// AWS Lambda.
    Aws(Which),
}

/// `foresail destroy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail destroy aws\n  \
    foresail destroy aws --objects                   the objects below the prefix in its bucket too\n  \
    foresail destroy aws --objects --bucket NAME     the same, when its functions are gone already")]
pub struct DestroyArgs {
    /// Where.
    #[command(subcommand)]
    pub platform: DestroyOn,
}

/// Platforms whose deployments are destroyed.
#[derive(Debug, Subcommand)]
pub enum DestroyOn {
    /// AWS Lambda.
    Aws(DestroyAwsArgs),
}

/// `foresail destroy aws`.
#[derive(Debug, Args)]
pub struct DestroyAwsArgs {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Deletes everything that lies below the prefix in the bucket too: results of all runs. The bucket
    /// itself stays.
    #[arg(long)]
    pub objects: bool,
    /// The bucket, where no function of the deployment is left that names it.
    #[arg(long, value_name = "NAME", requires = "objects")]
    pub bucket: Option<String>,
}
