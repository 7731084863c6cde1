//! The state of a ledger, to be stored and read again: who reads it need not fold what led to it.
//!
//! What is stored is a format without names of fields, for instance postcard. Its version stands at its head;
//! whoever finds another one folds the events or requests instead, which stay the truth.

use std::borrow::Cow;

use foresail_schemas::run::RunOptions;
use foresail_schemas::workflow::Workflow;
use serde::{Deserialize, Serialize};

use super::Ledger;
use crate::ledger_state::State;

/// Version of [`SavedLedger`]: grows with every change of what a ledger keeps, of its order or its meaning.
pub const STATE_VERSION: u32 = 1;

/// The state of a ledger without its workflow and its limits, which whoever reads it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedLedger<'a> {
    version: u32,
    state: Cow<'a, State>,
}

/// Why a stored state is not the one of this ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Another program wrote it.
    #[error("the state has version `{0}`, this program reads `{STATE_VERSION}`")]
    Version(u32),
    /// It belongs to another workflow.
    #[error("the state has `{saved}` tasks, the workflow `{tasks}`")]
    Tasks {
        /// Tasks of the state.
        saved: usize,
        /// Tasks of the workflow.
        tasks: usize,
    },
}

impl Ledger {
    /// Its state as it is now. Equal states have equal bytes.
    #[must_use]
    pub fn saved(&self) -> SavedLedger<'_> {
        SavedLedger { version: STATE_VERSION, state: Cow::Borrowed(&self.state) }
    }

    /// The ledger whose state was saved, with the workflow and the limits that it had: it goes on as that one
    /// would.
    ///
    /// # Errors
    /// [`SavedError`]
    pub fn restored(
        workflow: &Workflow,
        options: RunOptions,
        saved: SavedLedger<'_>,
    ) -> Result<Self, SavedError> {
        if saved.version != STATE_VERSION {
            return Err(SavedError::Version(saved.version));
        }
        let mut ledger = Self::new(workflow, options);
        let (saved, tasks) = (saved.state.into_owned(), ledger.graph.len());
        if saved.tasks.len() != tasks {
            return Err(SavedError::Tasks { saved: saved.tasks.len(), tasks });
        }
        ledger.state = saved;
        ledger.state.sort();
        Ok(ledger)
    }
}
