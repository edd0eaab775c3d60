//! A record of numbers and texts.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::error::Malformed;
use crate::proto::{Doubles, Record, RecordItem, RecordValue, Sints, Strings, Value};

/// Values by name: a config record, or a metric record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(BTreeMap<String, Value>);

impl Values {
    /// Sets a number.
    pub fn set_int(&mut self, key: &str, value: i64) {
        self.0.insert(key.into(), Value::Sint(value));
    }

    /// Sets a floating-point number.
    pub fn set_float(&mut self, key: &str, value: f64) {
        self.0.insert(key.into(), Value::Double(value));
    }

    /// Sets a truth value.
    pub fn set_bool(&mut self, key: &str, value: bool) {
        self.0.insert(key.into(), Value::Bool(value));
    }

    /// Sets a text.
    pub fn set_text(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.into(), Value::String(value.into()));
    }

    /// Sets a list of numbers.
    pub fn set_ints(&mut self, key: &str, vals: Vec<i64>) {
        self.0.insert(key.into(), Value::Sints(Sints { vals }));
    }

    /// Sets a list of floating-point numbers.
    pub fn set_floats(&mut self, key: &str, vals: Vec<f64>) {
        self.0.insert(key.into(), Value::Doubles(Doubles { vals }));
    }

    /// Sets a list of texts.
    pub fn set_texts(&mut self, key: &str, vals: Vec<String>) {
        self.0.insert(key.into(), Value::Strings(Strings { vals }));
    }

    /// A whole number of any type that holds one.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.0.get(key)? {
            Value::Sint(value) => Some(*value),
            Value::Uint(value) => (*value).try_into().ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::Double(value) => Some(*value),
            Value::Sint(value) => Some(*value as f64),
            Value::Uint(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// A list of whole numbers. Empty lists of any type are lists of any type.
    pub fn ints(&self, key: &str) -> Option<Vec<i64>> {
        match self.0.get(key)? {
            Value::Sints(list) => Some(list.vals.clone()),
            Value::Uints(list) => list.vals.iter().map(|&value| value.try_into().ok()).collect(),
            Value::Doubles(list) if list.vals.is_empty() => Some(Vec::new()),
            _ => None,
        }
    }

    /// A list of numbers.
    pub fn floats(&self, key: &str) -> Option<Vec<f64>> {
        match self.0.get(key)? {
            Value::Doubles(list) => Some(list.vals.clone()),
            _ => self.ints(key).map(|list| list.into_iter().map(|value| value as f64).collect()),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.0.get(key)? {
            Value::Strings(list) => Some(&list.vals),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let item = |(key, value): (&String, &Value)| RecordItem {
            key: key.clone(),
            value: Some(RecordValue { value: Some(value.clone()) }),
        };
        Record { items: self.0.iter().map(item).collect() }.encode_to_vec()
    }

    pub(super) fn from_bytes(bytes: &[u8], what: &'static str) -> Result<Self, Malformed> {
        let record =
            Record::decode(bytes).map_err(|error| Malformed::Body { what, why: error.to_string() })?;
        let items = record.items.into_iter().filter_map(|item| Some((item.key, item.value?.value?)));
        Ok(Self(items.collect()))
    }
}
