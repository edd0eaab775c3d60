//! Records of values, as messages hold them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct Doubles {
    #[prost(double, repeated, tag = "1")]
    pub vals: Vec<f64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sints {
    #[prost(sint64, repeated, tag = "1")]
    pub vals: Vec<i64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Uints {
    #[prost(uint64, repeated, tag = "1")]
    pub vals: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Bools {
    #[prost(bool, repeated, tag = "1")]
    pub vals: Vec<bool>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Strings {
    #[prost(string, repeated, tag = "1")]
    pub vals: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BytesList {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub vals: Vec<Vec<u8>>,
}

/// A value of a metric record (the first three and the lists of numbers) or of a config record (any).
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    #[prost(double, tag = "1")]
    Double(f64),
    #[prost(sint64, tag = "2")]
    Sint(i64),
    #[prost(uint64, tag = "3")]
    Uint(u64),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(string, tag = "5")]
    String(String),
    #[prost(bytes, tag = "6")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "21")]
    Doubles(Doubles),
    #[prost(message, tag = "22")]
    Sints(Sints),
    #[prost(message, tag = "23")]
    Uints(Uints),
    #[prost(message, tag = "24")]
    Bools(Bools),
    #[prost(message, tag = "25")]
    Strings(Strings),
    #[prost(message, tag = "26")]
    BytesList(BytesList),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RecordValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 21, 22, 23, 24, 25, 26")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RecordItem {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<RecordValue>,
}

/// A config record or a metric record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<RecordItem>,
}
