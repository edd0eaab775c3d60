//! How calls get to the SuperLink: the seam, and HTTP/1.1 behind it.
//!
//! Flower has changed its transport before, so nothing else in this crate knows of HTTP but for paths and status codes.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::FlowerError;

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Such as `fleet/pull-messages`.
    pub path: &'a str,
    /// What goes along with the body.
    pub headers: &'a [(&'static str, String)],
    /// An encoded message.
    pub body: &'a [u8],
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 200 if all is well.
    pub status: u16,
    /// An encoded message, or what is wrong.
    pub body: Vec<u8>,
}

/// Something that carries calls to a SuperLink.
pub trait Transport: Send + Sync {
    /// Makes a call and waits for its answer. Called from several threads at a time.
    ///
    /// # Errors
    /// [`FlowerError::Unreachable`] or [`FlowerError::Tls`] if there is none.
    fn call(&self, call: Call<'_>) -> Result<Reply, FlowerError>;
}

/// HTTP/1.1, with TLS where the URL says `https`.
pub struct Http {
    agent: Agent,
    url: String,
}

/// No answer is larger: a chunk is 5 MiB, and a list of messages some kilobytes for each.
const MOST_BYTES: u64 = 64 << 20;

/// As large as a chunk with its message.
const OUTPUT_BUFFER: usize = 6 << 20;

impl Http {
    /// To the SuperLink at `url`, such as `https://superlink.example.org:8000`. With `ca`, only certificates that this
    /// authority (PEM) has signed are accepted; without, those of the public authorities.
    ///
    /// # Errors
    /// [`FlowerError::Key`] if `url` or `ca` is not what it should be.
    pub fn new(url: &str, ca: Option<&[u8]>) -> Result<Self, FlowerError> {
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(FlowerError::Key(format!(
                "`{url}` is not the URL of a SuperLink: it begins with http:// or https://"
            )));
        }
        if ca.is_some() && !secure {
            return Err(FlowerError::Key(format!("a CA is of no use with `{url}`: use https://")));
        }
        let roots = match ca {
            None => RootCerts::WebPki,
            Some(pem) => {
                let certificates: Vec<Certificate<'static>> = parse_pem(pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(FlowerError::Key("the CA file holds no certificate in PEM format".into()));
                }
                RootCerts::Specific(Arc::new(certificates))
            }
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            // A chunk at once: the SuperLink pays for each piece that arrives.
            .output_buffer_size(OUTPUT_BUFFER)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, url: url.trim_end_matches('/').to_owned() })
    }
}

impl Transport for Http {
    fn call(&self, call: Call<'_>) -> Result<Reply, FlowerError> {
        let mut request = self
            .agent
            .post(format!("{}/v1/{}", self.url, call.path))
            .header("content-type", "application/protobuf");
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        let mut response = request.send(call.body).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(failed)?;
        Ok(Reply { status, body })
    }
}

fn failed(error: ureq::Error) -> FlowerError {
    let text = error.to_string();
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => FlowerError::Tls(text),
        ureq::Error::Io(io) if text.contains("certificate") || io.to_string().contains("certificate") => {
            FlowerError::Tls(text)
        }
        _ => FlowerError::Unreachable(text),
    }
}
