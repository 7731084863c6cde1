//! The serialised form of a predictor, piece by piece.
//!
//! A predictor of 65,536 tasks takes half a minute to fit and hundreds of megabytes, so a download of it is
//! made as its reader takes it: every piece fits and packs some tasks, and nothing is held between two
//! pieces. All pieces together are the form that serde gives, to the byte.

use std::sync::Arc;

use foresail_schemas::TaskName;
use serde::Serialize;

use crate::predictor::{PREDICTOR_VERSION, Predictor};

/// Bytes from which on a piece is full: some tens of milliseconds where all has to be fitted.
const PIECE_BYTES: usize = 256 << 10;

/// How a predictor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Postcard of [`Predictor`].
    Packed,
    /// JSON of [`Predictor`].
    Json,
}

/// Why a predictor cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Postcard refused.
    #[error("the predictor has no packed form: {0}")]
    Packed(#[from] postcard::Error),
    /// JSON refused.
    #[error("the predictor has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// The pieces of one predictor, in order.
#[derive(Debug)]
pub struct Download {
    predictor: Arc<Predictor>,
    form: Form,
    names: std::vec::IntoIter<TaskName>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Head,
    Tasks,
    Done,
}

impl Download {
    /// The form of a predictor, of which nothing is made yet.
    #[must_use]
    pub fn new(predictor: Arc<Predictor>, form: Form) -> Self {
        let names: Vec<TaskName> = predictor.tasks().cloned().collect();
        Self { predictor, form, names: names.into_iter(), step: Step::Head }
    }

    /// Whether all pieces were given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// The next piece, which fits what it holds; nothing behind the last.
    ///
    /// # Errors
    /// [`DownloadError`]; what came before is of no use then.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, DownloadError> {
        if self.is_done() {
            return Ok(None);
        }
        let mut piece = Piece { form: self.form, bytes: Vec::with_capacity(PIECE_BYTES) };
        if self.step == Step::Head {
            piece.head(self.predictor.samples(), self.names.len())?;
        }
        let mut is_first = self.step == Step::Head;
        while piece.bytes.len() < PIECE_BYTES
            && let Some(name) = self.names.next()
        {
            if let Some(task) = self.predictor.fitted(&name) {
                piece.text(if is_first { "" } else { "," });
                piece.entry(&name, &task)?;
                is_first = false;
            }
        }
        self.step = Step::Tasks;
        if self.names.len() == 0 {
            piece.text("},\"transfers\":");
            piece.value(self.predictor.transfers())?;
            piece.text(",\"startups\":");
            piece.value(self.predictor.startups())?;
            piece.text(",\"decisions\":");
            piece.value(self.predictor.decisions())?;
            piece.text("}");
            self.step = Step::Done;
        }
        Ok(Some(piece.bytes))
    }
}

struct Piece {
    form: Form,
    bytes: Vec<u8>,
}

impl Piece {
    fn head(&mut self, samples: u64, tasks: usize) -> Result<(), DownloadError> {
        self.text(&format!("{{\"version\":{PREDICTOR_VERSION},\"samples\":{samples},\"tasks\":{{"));
        match self.form {
            Form::Packed => self.value(&(PREDICTOR_VERSION, samples, tasks)),
            Form::Json => Ok(()),
        }
    }

    fn entry(&mut self, name: &TaskName, task: &impl Serialize) -> Result<(), DownloadError> {
        self.value(name)?;
        self.text(":");
        self.value(task)
    }

    fn value(&mut self, value: &impl Serialize) -> Result<(), DownloadError> {
        match self.form {
            Form::Packed => self.bytes = postcard::to_extend(value, std::mem::take(&mut self.bytes))?,
            Form::Json => serde_json::to_writer(&mut self.bytes, value)?,
        }
        Ok(())
    }

    /// What only JSON has.
    fn text(&mut self, text: &str) {
        if self.form == Form::Json {
            self.bytes.extend(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::decision::Decision;
    use foresail_schemas::metric::{DecisionRecord, Direction, Record, TaskRecord, TransferRecord};
    use jiff::Timestamp;

    use super::*;
    use crate::WorkflowModel;

    fn predictor(tasks: u64) -> Arc<Predictor> {
        let mut model = WorkflowModel::new();
        for n in 0..tasks * 40 {
            let (memory_mb, vcpu) = ([512, 1024, 1769][(n / tasks % 3) as usize], None);
            let (input_bytes, at) = (1000 + n * 7919 % 100_000, Timestamp::from_second(n as i64).ok());
            let exec_ms = input_bytes as f64 / f64::from(memory_mb) + 3.0;
            let record = TaskRecord {
                task: TaskName::new(format!("t{}", n % tasks)).unwrap(),
                memory_mb,
                vcpu,
                input_bytes,
                output_bytes: Some(input_bytes / 3),
                exec_ms,
                peak_memory_mb: None,
                attempt: 1,
                at,
                forecast: None,
            };
            model.update(&Record::Task(record), Timestamp::MAX);
            let (direction, bytes, store) = (Direction::Upload, input_bytes, None);
            let moved = TransferRecord { direction, bytes, time_ms: exec_ms, memory_mb, vcpu, store, at };
            model.update(&Record::Transfer(moved), Timestamp::MAX);
            let (task, value) = (TaskName::new("t0").unwrap(), Decision::Width(n % 9));
            let decided = DecisionRecord { task, input_bytes, value, at };
            model.update(&Record::Decision(decided), Timestamp::MAX);
        }
        model.snapshot()
    }

    #[test]
    fn all_pieces_together_are_the_serde_form_to_the_byte() {
        for (tasks, is_large) in [(0, false), (1, false), (200, true)] {
            let predictor = predictor(tasks);
            let packed = postcard::to_stdvec(&*predictor).unwrap();
            let json = serde_json::to_vec(&*predictor).unwrap();
            for (form, whole) in [(Form::Packed, packed), (Form::Json, json)] {
                let (mut download, mut pieces) = (Download::new(Arc::clone(&predictor), form), Vec::new());
                while let Some(piece) = download.next_piece().unwrap() {
                    pieces.push(piece);
                }
                assert!(download.is_done());
                assert_eq!(pieces.len() > 2, is_large, "{tasks} tasks, {form:?}");
                assert!(pieces.concat() == whole, "{tasks} tasks, {form:?}");
            }
        }
    }
}
