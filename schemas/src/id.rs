//! Names and ids: what may be written into a path, a key or a log line without escaping.
//!
//! Every name is 1 to [`NAME_LEN_MAX`] bytes of `A-Z a-z 0-9 _ . : @ + ~ -` and starts with a letter, a digit
//! or `_`. [`ObjectName`] is freer: file names of foreign workflow formats are object names.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// Longest object name in bytes.
pub const OBJECT_NAME_LEN_MAX: usize = 1024;
/// Name of a task's only output, where none is given.
pub(crate) const DEFAULT_OUTPUT: &str = "out";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a {kind} must not be empty")]
    Empty {
        /// What was being named.
        kind: &'static str,
    },
    /// The name is longer than the limit.
    #[error("a {kind} has at most {max} bytes, this one has {len}")]
    TooLong {
        /// What was being named.
        kind: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name has a character outside the charset.
    #[error(
        "`{value}` is not a {kind}: `{found}` at byte {at} is not allowed \
         (letters, digits and _ . : @ + ~ -, starting with a letter, digit or _)"
    )]
    Charset {
        /// What was being named.
        kind: &'static str,
        /// The refused text.
        value: String,
        /// The first character that is not allowed.
        found: char,
        /// Where it stands.
        at: usize,
    },
}

fn check_name(kind: &'static str, value: &str) -> Result<(), NameError> {
    if value.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if value.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong { kind, len: value.len(), max: NAME_LEN_MAX });
    }
    let bad = value.char_indices().find(|&(at, c)| {
        let anywhere = c.is_ascii_alphanumeric() || c == '_';
        !(anywhere || (at > 0 && matches!(c, '.' | ':' | '@' | '+' | '~' | '-')))
    });
    match bad {
        None => Ok(()),
        Some((at, found)) => Err(NameError::Charset { kind, value: value.to_owned(), found, at }),
    }
}

fn check_object_name(kind: &'static str, value: &str) -> Result<(), NameError> {
    if value.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if value.len() > OBJECT_NAME_LEN_MAX {
        return Err(NameError::TooLong { kind, len: value.len(), max: OBJECT_NAME_LEN_MAX });
    }
    match value.char_indices().find(|(_, c)| c.is_control()) {
        None => Ok(()),
        Some((at, found)) => Err(NameError::Charset { kind, value: value.to_owned(), found, at }),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:ident, $schema:expr) => {
        $(#[$doc])*
        #[derive(Clone, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        // Most names that are compared are copies of one, whose text need not be read.
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $type {
            /// Checks `value` and makes a name of it.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, too long or has a character outside the charset.
            pub fn new(value: impl AsRef<str>) -> Result<Self, NameError> {
                $check($kind, value.as_ref())?;
                Ok(Self(Arc::from(value.as_ref())))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}

fn name_schema(what: &str) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "description": what, "minLength": 1, "maxLength": NAME_LEN_MAX,
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:@+~-]*$"
    })
}

name_type!(
    /// Name of a workflow: the structure, not one execution of it. Metrics are kept per workflow.
    WorkflowName, "workflow name", check_name, name_schema("Name of a workflow")
);
name_type!(
    /// Name of a task: the function whose history is kept. Several tasks of one workflow may share it.
    TaskName, "task name", check_name, name_schema("Name of the function whose history is kept")
);
name_type!(
    /// Id of a task: one node of one workflow.
    TaskId, "task id", check_name, name_schema("Id of one node of the workflow")
);
name_type!(
    /// Id of a run: one execution of a workflow.
    RunId, "run id", check_name, name_schema("Id of one execution of a workflow")
);
name_type!(
    /// Id of a planned worker, unique within its plan.
    WorkerId, "worker id", check_name, name_schema("Id of a worker, unique within its plan")
);
name_type!(
    /// Id of one invocation of a worker, unique within its run: the holder of a lease.
    InstanceId, "instance id", check_name, name_schema("Id of one invocation of a worker")
);
name_type!(
    /// Id of a metric batch; sending the same id again changes nothing.
    BatchId, "batch id", check_name, name_schema("Id of a metric batch, its idempotency key")
);
name_type!(
    /// Name of a platform: `local`, `aws-lambda-x86`, ….
    PlatformName, "platform name", check_name, name_schema("Name of a platform")
);
name_type!(
    /// Name of one output object of a task: any text without control characters.
    ObjectName, "object name", check_object_name,
    schemars::json_schema!({
        "type": "string", "description": "Name of one output object of a task", "minLength": 1,
        "maxLength": OBJECT_NAME_LEN_MAX
    })
);

impl Default for ObjectName {
    /// The name of a task's only output.
    fn default() -> Self {
        // Most inputs of most workflows have this name: all copies share it.
        static OUT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(DEFAULT_OUTPUT));
        Self(OUT.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_charset_are_refused() {
        for good in ["a", "mProject_ID0000001", "w-3", "r.1:x@y+z~q", "0"] {
            assert_eq!(TaskId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "-a", ".a", "ä", "a\n", &"x".repeat(256)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_name_is_refused_by_serde_too() {
        assert!(serde_json::from_str::<RunId>("\"a/b\"").is_err());
        assert_eq!(serde_json::from_str::<RunId>("\"a-b\"").unwrap(), RunId::new("a-b").unwrap());
    }

    #[test]
    fn object_names_take_paths_but_no_control_characters() {
        assert!(ObjectName::new("/nf-core/test data/x.fastq.gz").is_ok());
        assert!(ObjectName::new("a\0b").is_err());
        assert_eq!(ObjectName::default().as_str(), "out");
    }
}
