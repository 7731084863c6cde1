//! Starting interpreters. The kernel ends a child with the *thread* that started it (`PR_SET_PDEATHSIG`), so
//! a thread that lasts as long as the worker starts them all: a runner outlives the thread of its first call
//! and never its worker.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::ending;

/// Orders that wait: at most one per thread of the worker.
const ORDERS_MAX: usize = 64;

type Order = (Command, SyncSender<io::Result<Child>>);

/// The code that an interpreter begins with: it reads the modules from the socket that is its standard
/// input. Their sizes are its arguments. In a function, so that the main module of the user stays empty.
const BOOT: &str = r#"
def _foresail_boot():
    import os, sys, types
    del globals()["_foresail_boot"]
    def load(name, size):
        text = b""
        while len(text) < size:
            more = os.read(0, size - len(text))
            if not more:
                os._exit(0)
            text += more
        module = types.ModuleType("foresail." + name)
        module.__package__, module.__file__ = "foresail", "<foresail>/" + name + ".py"
        sys.modules[module.__name__] = module
        exec(compile(text, module.__file__, "exec"), module.__dict__)
        return module
    wire, channel, failures, keep, runner = map(int, sys.argv[1:6])
    sys.argv[:] = [""]
    load("_wire", wire)
    load("_channel", channel)
    load("_failures", failures)
    try:
        load("_keep", keep)
    except ImportError:  # an interpreter without ctypes keeps nothing
        sys.modules.pop("foresail._keep")
    load("_runner", runner).main()
_foresail_boot()
"#;

/// The modules that every runner is given, whether or not the package is installed.
pub(super) const MODULES: [&str; 5] = [
    include_str!("../../../../client/python/foresail/_wire.py"),
    include_str!("../../../../client/python/foresail/_channel.py"),
    include_str!("../../../../client/python/foresail/_failures.py"),
    include_str!("../../../../client/python/foresail/_keep.py"),
    include_str!("../../../../client/python/foresail/_runner.py"),
];

/// The arguments of an interpreter.
pub(super) fn arguments() -> Vec<String> {
    let sizes = MODULES.iter().map(|text| text.len().to_string());
    ["-c".to_owned(), BOOT.to_owned()].into_iter().chain(sizes).collect()
}

/// Starts a process that lives no longer than this one.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (to_starter, orders) = sync_channel::<Order>(ORDERS_MAX);
        let work = move || {
            for (mut command, tell) in orders {
                let child = ending::start_guarded(|| command.spawn());
                // Whoever asked waits for it.
                let _ = tell.send(child);
            }
        };
        // Without the thread the channel is closed, which is told below.
        let _ = std::thread::Builder::new().name("python".to_owned()).spawn(work);
        to_starter
    });
    let (tell, told) = sync_channel(1);
    let no_thread = || io::Error::other("no thread could be started for it");
    starter.send((command, tell)).map_err(|_| no_thread())?;
    told.recv().unwrap_or_else(|_| Err(no_thread()))
}
