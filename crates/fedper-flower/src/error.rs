//! What can go wrong between this program and a SuperLink.

use thiserror::Error;

/// What can go wrong between this program and a SuperLink.
#[derive(Debug, Error)]
pub enum FlowerError {
    /// The SuperLink cannot be reached, or the connection broke.
    #[error("cannot reach the SuperLink: {0}")]
    Unreachable(String),
    /// The connection is not to be trusted.
    #[error(
        "the SuperLink's certificate is not accepted ({0}): pass the right --ca, or ask whose server this is"
    )]
    Tls(String),
    /// It answered with another status than 200.
    #[error("{call}: the SuperLink answered {status}{}", hint(call, *status, detail))]
    Status {
        /// Which call.
        call: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// Something that came in is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A key that is not one.
    #[error("{0}")]
    Key(String),
    /// An object that was promised is not there.
    #[error("object {0} is gone: its message has expired")]
    Gone(String),
    /// The caller wants to end.
    #[error("interrupted")]
    Interrupted,
}

/// Whether what a call failed with may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayPass {
    /// The same call fails for ever.
    Never,
    /// The SuperLink stumbled. It may have been busy, but it stumbles for ever over what it has forgotten: Flower's
    /// answers 500 to whatever names a run that it does not know.
    Soon,
    /// The SuperLink is away or overcharged, and says nothing about the call.
    WhenItIsBack,
}

fn hint(call: &str, status: u16, detail: &str) -> String {
    let advice = match status {
        // Whoever shows a key has it refused when it registers. Every other call names a node or a run.
        401 if call.ends_with("/register-node") || call.ends_with("/activate-node") => {
            ": this node's key or its clock is not accepted; register the key, or set the clock"
        }
        401 if call.starts_with("fleet/") => {
            ": it does not know this node; it was started anew, or this machine's clock is wrong"
        }
        401 => ": it does not know this run; it was started anew, or has given the run up",
        412 => ": this call is not allowed here; with node authentication, the operator registers the key",
        500 => ": it has stumbled over this call, or no longer knows its run",
        _ => "",
    };
    let detail = detail.trim();
    if detail.is_empty() { advice.to_owned() } else { format!(" ({detail}){advice}") }
}

impl FlowerError {
    /// Whether the same call may succeed in a while.
    pub fn may_pass(&self) -> MayPass {
        match self {
            Self::Unreachable(_) | Self::Status { status: 429 | 502..=504, .. } => MayPass::WhenItIsBack,
            Self::Status { status: 500..=599, .. } => MayPass::Soon,
            _ => MayPass::Never,
        }
    }

    /// Flower's own number for what is wrong, where the SuperLink gives one besides the status.
    pub fn code(&self) -> Option<u32> {
        let Self::Status { detail, .. } = self else { return None };
        let number = detail.split_once("\"code\":")?.1.trim_start();
        number[..number.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    }

    /// Whether the SuperLink says that the run is over, or was never there.
    pub fn is_run_over(&self) -> bool {
        matches!(self, Self::Status { status: 403, .. })
    }
}

/// What is wrong with bytes that came in.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// Its hash is not the name it goes by.
    #[error("object {expected} has the content of {found}")]
    Hash {
        /// The id it was asked for by.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// It does not begin with a header.
    #[error("an object without a valid header: {0}")]
    Header(&'static str),
    /// The header's length is not the body's.
    #[error("an object whose header says {expected} bytes holds {found}")]
    Length {
        /// As the header says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// Another type of object than this place takes.
    #[error("an object of type {found} where {expected} belongs")]
    Type {
        /// What belongs here.
        expected: &'static str,
        /// What is here.
        found: String,
    },
    /// An object that the message refers to did not come with it.
    #[error("the message refers to object {0}, which is not a part of it")]
    Missing(String),
    /// A body that cannot be read.
    #[error("{what} cannot be read: {why}")]
    Body {
        /// Of what.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// An array that is not what it should be.
    #[error("array `{name}`: {why}")]
    Array {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// More than is allowed.
    #[error("{what} of {found} where at most {most} is allowed")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        most: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(call: &str, status: u16) -> FlowerError {
        FlowerError::Status { call: call.into(), status, detail: String::new() }
    }

    #[test]
    fn a_lost_run_is_not_a_wrong_key() {
        for (call, said) in [
            ("fleet/register-node", "key or its clock"),
            ("fleet/activate-node", "key or its clock"),
            ("fleet/pull-messages", "does not know this node"),
            ("fleet/confirm-message-received", "does not know this node"),
            ("runtime/pull-messages", "does not know this run"),
            ("runtime/push-object", "does not know this run"),
        ] {
            let text = status(call, 401).to_string();
            assert!(text.contains(said), "{text}");
            assert_eq!(text.contains("key"), said.contains("key"), "{text}");
        }
    }

    #[test]
    fn only_what_says_nothing_of_the_call_is_waited_for() {
        for (code, expected) in [
            (401, MayPass::Never),
            (403, MayPass::Never),
            (429, MayPass::WhenItIsBack),
            (500, MayPass::Soon),
            (501, MayPass::Soon),
            (503, MayPass::WhenItIsBack),
        ] {
            assert_eq!(status("x", code).may_pass(), expected, "{code}");
        }
        assert_eq!(FlowerError::Unreachable(String::new()).may_pass(), MayPass::WhenItIsBack);
    }
}
