//! Workflow and plan of a run inside an invocation, for platforms whose payload has room for them: the worker
//! need not read them, which a thousand workers that start at once would all do.
//!
//! Both travel whole and compressed, not as the part of the graph that the worker is for: plan and run state
//! name tasks by their place in the graph, and a worker may take over any of them. What does not fit stays
//! away, and is read. Whoever may invoke a worker may not thereby say what it runs: the documents carry a
//! keyed hash that only who knows the token of metad can make, and metad is asked for the state of the run
//! as before, so that an old plan is known as one.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::Documents;
use foresail_schemas::run::CurrentPlan;
use foresail_schemas::workflow::Workflow;
use serde::{Deserialize, Serialize};

/// Level of the compression: the fastest ones differ little in size on documents of names.
const LEVEL: i32 = 3;
/// Most bytes of JSON that documents may unpack to.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// What the key is for. Changing it makes programs of different versions refuse each other's documents.
const KEY_CONTEXT: &str = "foresail 2026-11 documents of an invocation";

/// Why documents were not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Not made by anybody who knows the token, or for another run.
    #[error("their hash is not that of this run and token")]
    Forged,
    /// No documents.
    #[error("they cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize)]
struct Packed<'a> {
    workflow: &'a Workflow,
    plan: &'a CurrentPlan,
}

#[derive(Deserialize)]
struct Unpacked {
    workflow: Workflow,
    plan: CurrentPlan,
}

/// Packs the documents of a run; nothing where they take more than `bytes_max` bytes of an invocation.
pub(crate) fn pack(
    run: &RunId,
    workflow: &Workflow,
    plan: &CurrentPlan,
    token: Option<&str>,
    bytes_max: usize,
) -> Option<Documents> {
    let json = serde_json::to_vec(&Packed { workflow, plan }).ok()?;
    let packed = BASE64_STANDARD.encode(zstd::bulk::compress(&json, LEVEL).ok()?);
    let documents = Documents { mac: mac(run, &packed, token).to_hex().to_string(), packed };
    // Quotation marks, names and commas of the two fields.
    let bytes = documents.packed.len() + documents.mac.len() + 64;
    (bytes <= bytes_max && json.len() as u64 <= UNPACKED_BYTES_MAX).then_some(documents)
}

/// Workflow and plan out of documents.
pub(crate) fn unpack(
    run: &RunId,
    documents: &Documents,
    token: Option<&str>,
) -> Result<(Workflow, CurrentPlan), Unusable> {
    let told = blake3::Hash::from_hex(&documents.mac).map_err(|_| Unusable::Forged)?;
    // Hashes are compared in constant time.
    if told != mac(run, &documents.packed, token) {
        return Err(Unusable::Forged);
    }
    let unreadable = |cause: &dyn std::fmt::Display| Unusable::Unreadable(cause.to_string());
    let compressed = BASE64_STANDARD.decode(&documents.packed).map_err(|e| unreadable(&e))?;
    let decoder = zstd::stream::Decoder::new(&compressed[..]).map_err(|e| unreadable(&e))?;
    let mut json = Vec::new();
    decoder.take(UNPACKED_BYTES_MAX).read_to_end(&mut json).map_err(|e| unreadable(&e))?;
    let Unpacked { workflow, plan } = serde_json::from_slice(&json).map_err(|e| unreadable(&e))?;
    Ok((workflow, plan))
}

/// Source: J. O'Connor et al., BLAKE3, 2020, 2.3: the modes `derive_key` and `keyed_hash`.
fn mac(run: &RunId, packed: &str, token: Option<&str>) -> blake3::Hash {
    let key = blake3::derive_key(KEY_CONTEXT, token.unwrap_or_default().as_bytes());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    // A name has no line break, so that no other pair gives the same bytes.
    hasher.update(run.as_str().as_bytes()).update(b"\n").update(packed.as_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use foresail_schemas::examples;

    use super::*;

    const TOKEN: Option<&str> = Some("secret");

    fn documents(bytes_max: usize) -> Option<Documents> {
        pack(&run("r"), &examples::workflow(), &examples::current_plan(), TOKEN, bytes_max)
    }

    fn run(name: &str) -> RunId {
        RunId::new(name).unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_and_what_does_not_fit_stays_away() {
        let packed = documents(1 << 20).unwrap();
        let (workflow, plan) = unpack(&run("r"), &packed, TOKEN).unwrap();
        assert_eq!((workflow, plan), (examples::workflow(), examples::current_plan()));
        let bytes = serde_json::to_vec(&packed).unwrap().len();
        assert!(documents(bytes + 64).is_some());
        assert_eq!(documents(bytes - 64), None);
    }

    #[test]
    fn documents_of_another_run_token_or_content_are_refused() {
        let packed = documents(1 << 20).unwrap();
        let check = |run_name: &str, documents: &Documents, token| {
            assert_eq!(unpack(&run(run_name), documents, token).unwrap_err(), Unusable::Forged);
        };
        check("other", &packed, TOKEN);
        check("r", &packed, Some("guessed"));
        check("r", &packed, None);
        check("r", &Documents { mac: "none".to_owned(), ..packed.clone() }, TOKEN);
        let other = pack(&run("q"), &examples::workflow(), &examples::current_plan(), TOKEN, 1 << 20);
        check("r", &Documents { packed: other.unwrap().packed + "=", ..packed }, TOKEN);
    }

    #[test]
    fn documents_that_are_none_are_an_error_and_no_panic() {
        let packed = BASE64_STANDARD.encode(b"no zstd");
        let mac = mac(&run("r"), &packed, TOKEN).to_hex().to_string();
        let error = unpack(&run("r"), &Documents { packed, mac }, TOKEN).unwrap_err();
        assert!(matches!(error, Unusable::Unreadable(_)), "{error}");
    }
}
