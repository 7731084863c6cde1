//! What a function is told by its environment: written when it is deployed, read when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use foresail_worker::coordination::CoordinationSettings;
use foresail_worker::host::local::ObjectPlace;
use foresail_worker::runtime::settings::StoreSettings;

/// Begin of the names of the functions, which end in their memory: `foresail-512`.
pub const PREFIX_VARIABLE: &str = "FORESAIL_LAMBDA_PREFIX";
/// Memory sizes of the functions in MB, with commas.
pub const MEMORY_VARIABLE: &str = "FORESAIL_LAMBDA_MEMORY";
/// The one metad that the function works for; any where absent.
pub const METAD_VARIABLE: &str = "FORESAIL_METAD";
/// Token of metad.
pub const TOKEN_VARIABLE: &str = "FORESAIL_METAD_TOKEN";
/// Where objects lie that are too large for a commit record: `metad` or `s3://BUCKET/PREFIX`; blobs of metad
/// where absent.
pub const STORE_VARIABLE: &str = "FORESAIL_STORE";
/// Address of Redis for the state of runs, where it is kept there.
pub const REDIS_VARIABLE: &str = "FORESAIL_COORDINATION";
/// Directory for scratch files and measurements that wait.
pub const DATA_VARIABLE: &str = "FORESAIL_WORKER_DATA";
/// The directory where none is named: all that a function may write.
const DATA_DEFAULT: &str = "/tmp/foresail";

/// Settings of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionSettings {
    /// Begin of the names of the functions.
    pub prefix: String,
    /// Memory sizes of the functions in MB.
    pub memory_mb: Vec<u32>,
    /// The one metad that the function works for; any where absent.
    pub metad: Option<String>,
    /// Token of metad.
    pub token: Option<String>,
    /// Where large objects lie.
    pub store: StoreSettings,
    /// Where the state of runs is kept.
    pub coordination: CoordinationSettings,
    /// Directory for scratch files and measurements that wait.
    pub data: PathBuf,
}

impl FunctionSettings {
    /// Reads them from variables.
    ///
    /// # Errors
    /// A sentence that names the variable and its value.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let wrong = |name: &str, value: &str, why: String| format!("{name} is `{value}`: {why}");
        let needed = |name: &str| {
            variable(name).ok_or_else(|| format!("{name} is not set; hint: `foresail deploy aws` sets it"))
        };
        let memory = needed(MEMORY_VARIABLE)?;
        let sizes = memory.split(',').map(|size| size.trim().parse::<u32>());
        let memory_mb = sizes.collect::<Result<Vec<_>, _>>();
        let memory_mb = memory_mb.map_err(|e| wrong(MEMORY_VARIABLE, &memory, e.to_string()))?;
        let store = match variable(STORE_VARIABLE) {
            None => StoreSettings::Metad,
            Some(text) => match text.parse::<ObjectPlace>() {
                Ok(ObjectPlace::Files) => {
                    let why = "functions share no files; hint: use `metad` or `s3://BUCKET/PREFIX`";
                    return Err(wrong(STORE_VARIABLE, &text, why.to_owned()));
                }
                Ok(place) => place.store(PathBuf::new()),
                Err(why) => return Err(wrong(STORE_VARIABLE, &text, why)),
            },
        };
        let coordination = match variable(REDIS_VARIABLE) {
            None => CoordinationSettings::Metad,
            // The address may hold a password.
            Some(text) => text.parse().map_err(|why| format!("{REDIS_VARIABLE}: {why}"))?,
        };
        Ok(Self {
            coordination,
            prefix: needed(PREFIX_VARIABLE)?,
            memory_mb,
            metad: variable(METAD_VARIABLE),
            token: variable(TOKEN_VARIABLE),
            store,
            data: variable(DATA_VARIABLE).map_or_else(|| PathBuf::from(DATA_DEFAULT), PathBuf::from),
        })
    }
}

/// The environment of the functions of a deployment.
#[must_use]
pub fn environment(deployment: &crate::deploy::Deployment) -> BTreeMap<&'static str, String> {
    let memory: Vec<String> = deployment.memory_mb.iter().map(u32::to_string).collect();
    let mut variables =
        BTreeMap::from([(PREFIX_VARIABLE, deployment.prefix.clone()), (MEMORY_VARIABLE, memory.join(","))]);
    let mut optional = |name, value: &Option<String>| {
        if let Some(value) = value {
            variables.insert(name, value.clone());
        }
    };
    optional(METAD_VARIABLE, &deployment.metad);
    optional(TOKEN_VARIABLE, &deployment.token);
    optional(REDIS_VARIABLE, &deployment.redis);
    optional(STORE_VARIABLE, &deployment.store_setting());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<FunctionSettings, String> {
        FunctionSettings::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let least = [(PREFIX_VARIABLE, "foresail"), (MEMORY_VARIABLE, "512, 1769")];
        let settings = read(&least).unwrap();
        assert_eq!((settings.memory_mb, settings.store), (vec![512, 1769], StoreSettings::Metad));
        assert!(read(&least[..1]).unwrap_err().contains("FORESAIL_LAMBDA_MEMORY is not set"));
        let error = read(&[least[0], (MEMORY_VARIABLE, "512,big")]).unwrap_err();
        assert!(error.contains("`512,big`"), "{error}");
        let error = read(&[least[0], least[1], (STORE_VARIABLE, "nowhere")]).unwrap_err();
        assert!(error.contains("FORESAIL_STORE is `nowhere`"), "{error}");
        let error = read(&[least[0], least[1], (STORE_VARIABLE, "files")]).unwrap_err();
        assert!(error.contains("functions share no files"), "{error}");
    }
}
