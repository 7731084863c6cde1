//! What can be typed after `bridge`.

use clap::Args;

use super::HostArgs;

/// `foresail bridge`.
#[derive(Debug, Args)]
#[command(after_help = "Speaks JSON-RPC 2.0, one object per line, on stdin and stdout: docs/bridge.md.\n\
    It ends, and with it a stack that it started, when stdin is closed or its parent ends.")]
pub struct BridgeArgs {
    /// Workers, where a stack is started for the session.
    #[command(flatten)]
    pub workers: HostArgs,
}
