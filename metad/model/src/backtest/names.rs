//! How protocols, quantities and methods are written.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{BacktestError, Method, Protocol, Quantity};

const PROTOCOL_HINT: &str =
    "memory, memory-one, joint:N, extrapolate, next-run or coverage:N, with N from 1, as in joint:30";

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::MemoryOne => f.write_str("memory-one"),
            Self::Joint(count) => write!(f, "joint:{count}"),
            Self::Extrapolate => f.write_str("extrapolate"),
            Self::NextRun => f.write_str("next-run"),
            Self::Coverage(count) => write!(f, "coverage:{count}"),
        }
    }
}

impl FromStr for Protocol {
    type Err = BacktestError;
    fn from_str(text: &str) -> Result<Self, BacktestError> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count.parse::<usize>().ok().filter(|n| *n > 0))),
            None => (text, None),
        };
        match (name, count) {
            ("memory", None) => Ok(Self::Memory),
            ("memory-one", None) => Ok(Self::MemoryOne),
            ("extrapolate", None) => Ok(Self::Extrapolate),
            ("next-run", None) => Ok(Self::NextRun),
            ("joint", Some(Some(count))) => Ok(Self::Joint(count)),
            ("coverage", Some(Some(count))) => Ok(Self::Coverage(count)),
            _ => {
                Err(BacktestError::Unknown { kind: "protocol", value: text.to_owned(), hint: PROTOCOL_HINT })
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExecutionTime => "execution-time",
            Self::OutputSize => "output-size",
            Self::TransferTime => "transfer-time",
        })
    }
}

impl FromStr for Quantity {
    type Err = BacktestError;
    fn from_str(text: &str) -> Result<Self, BacktestError> {
        [Self::ExecutionTime, Self::OutputSize, Self::TransferTime]
            .into_iter()
            .find(|quantity| quantity.to_string() == text)
            .ok_or_else(|| BacktestError::Unknown {
                kind: "quantity",
                value: text.to_owned(),
                hint: "execution-time, output-size or transfer-time",
            })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Mean => "mean",
            Self::Median => "median",
            Self::NearestNeighbours => "nearest-neighbours",
            Self::Linear => "linear",
            Self::LogLinear => "log-linear",
            Self::FixedExponent => "fixed-exponent",
            Self::ProportionalToBytes => "proportional-to-bytes",
        })
    }
}

impl FromStr for Method {
    type Err = BacktestError;
    fn from_str(text: &str) -> Result<Self, BacktestError> {
        Self::ALL.into_iter().find(|method| method.to_string() == text).ok_or_else(|| {
            BacktestError::Unknown {
                kind: "method",
                value: text.to_owned(),
                hint: "model, mean, median, nearest-neighbours, linear, log-linear, fixed-exponent or \
                   proportional-to-bytes",
            }
        })
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
