//! The messages of Flower's interfaces, as far as they are used: what is not declared is skipped on reading.
//!
//! Field numbers are Flower's; the interfaces are Apache-2.0. Names are Flower's too, so that a reader can look them up.
#![allow(missing_docs, reason = "Flower documents its messages")]

mod record;

pub use self::record::{
    Bools, BytesList, Doubles, Record, RecordItem, RecordValue, Sints, Strings, Uints, Value,
};
use std::collections::HashMap;

/// A call's argument or result.
pub trait Body: prost::Message + Default {}
impl<T: prost::Message + Default> Body for T {}

/// The bytes of a message.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Node {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeInfo {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    #[prost(uint64, tag = "1")]
    pub run_id: u64,
    #[prost(string, tag = "2")]
    pub message_id: String,
    #[prost(uint64, tag = "3")]
    pub src_node_id: u64,
    #[prost(uint64, tag = "4")]
    pub dst_node_id: u64,
    #[prost(string, tag = "5")]
    pub reply_to_message_id: String,
    #[prost(string, tag = "6")]
    pub group_id: String,
    #[prost(double, tag = "7")]
    pub ttl: f64,
    #[prost(string, tag = "8")]
    pub message_type: String,
    #[prost(double, tag = "9")]
    pub created_at: f64,
    #[prost(uint64, optional, tag = "10")]
    pub src_task_id: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    pub dst_task_id: Option<u64>,
}

/// The content of a message on the wire: always present, always empty; what it holds travels as objects.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Error {
    #[prost(sint64, tag = "1")]
    pub code: i64,
    #[prost(string, tag = "2")]
    pub reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    pub content: Option<Empty>,
    #[prost(message, optional, tag = "3")]
    pub error: Option<Error>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ObjectTree {
    #[prost(string, tag = "1")]
    pub object_id: String,
    #[prost(message, repeated, tag = "2")]
    pub children: Vec<ObjectTree>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PushObjectRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub object_id: String,
    #[prost(bytes = "vec", tag = "4")]
    pub object_content: Vec<u8>,
    #[prost(string, tag = "5")]
    pub session_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PushObjectResponse {
    #[prost(bool, tag = "1")]
    pub stored: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullObjectRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub object_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullObjectResponse {
    #[prost(bool, tag = "1")]
    pub object_found: bool,
    #[prost(bool, tag = "2")]
    pub object_available: bool,
    #[prost(bytes = "vec", tag = "3")]
    pub object_content: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfirmMessageReceivedRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub message_object_id: String,
}

// ---- Fleet

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterNodeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivateNodeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
    #[prost(double, tag = "2")]
    pub heartbeat_interval: f64,
}

/// What both `register-node` and `activate-node` answer; and what `deactivate-node` and `unregister-node` ask.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeId {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SendNodeHeartbeatRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(double, tag = "2")]
    pub heartbeat_interval: f64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Success {
    #[prost(bool, tag = "1")]
    pub success: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullMessagesRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullMessagesResponse {
    #[prost(message, repeated, tag = "2")]
    pub messages_list: Vec<Message>,
    #[prost(message, repeated, tag = "3")]
    pub message_object_trees: Vec<ObjectTree>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PushMessagesRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(message, repeated, tag = "2")]
    pub messages_list: Vec<Message>,
    #[prost(message, repeated, tag = "3")]
    pub message_object_trees: Vec<ObjectTree>,
    #[prost(double, repeated, tag = "4")]
    pub clientapp_runtime_list: Vec<f64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PushMessagesResponse {
    #[prost(map = "string, uint32", tag = "2")]
    pub results: HashMap<String, u32>,
    #[prost(string, repeated, tag = "3")]
    pub objects_to_push: Vec<String>,
    #[prost(string, tag = "4")]
    pub session_id: String,
}

// ---- Control and Runtime

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fab {
    #[prost(string, tag = "1")]
    pub hash_str: String,
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartRunRequest {
    #[prost(message, optional, tag = "1")]
    pub fab: Option<Fab>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartRunResponse {
    #[prost(uint64, optional, tag = "1")]
    pub run_id: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub note: Option<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AcquireTaskRequest {
    #[prost(string, repeated, tag = "1")]
    pub supported_task_types: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Task {
    #[prost(uint64, tag = "1")]
    pub task_id: u64,
    #[prost(uint64, tag = "3")]
    pub run_id: u64,
    #[prost(string, optional, tag = "9")]
    pub fab_hash: Option<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AcquireTaskResponse {
    #[prost(message, optional, tag = "1")]
    pub task: Option<Task>,
    #[prost(string, tag = "2")]
    pub token: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Context {
    #[prost(uint64, tag = "1")]
    pub run_id: u64,
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullTaskInputResponse {
    #[prost(message, optional, tag = "1")]
    pub context: Option<Context>,
    #[prost(uint64, tag = "5")]
    pub task_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetNodesResponse {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NodeInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PushAppMessagesRequest {
    #[prost(message, repeated, tag = "2")]
    pub messages_list: Vec<Message>,
    #[prost(message, repeated, tag = "3")]
    pub message_object_trees: Vec<ObjectTree>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PushAppMessagesResponse {
    #[prost(string, repeated, tag = "1")]
    pub message_ids: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub objects_to_push: Vec<String>,
    #[prost(string, tag = "3")]
    pub session_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullAppMessagesRequest {
    #[prost(string, repeated, tag = "2")]
    pub message_ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullAppMessagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub messages_list: Vec<Message>,
    #[prost(message, repeated, tag = "2")]
    pub message_object_trees: Vec<ObjectTree>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PushTaskOutputRequest {
    #[prost(message, optional, tag = "1")]
    pub context: Option<Context>,
    #[prost(string, tag = "2")]
    pub sub_status: String,
    #[prost(string, tag = "3")]
    pub details: String,
}

// ---- Records
