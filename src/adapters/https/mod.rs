//! The server's ports: TLS, limited connections, probes and the admin endpoints.

pub mod admin;
pub mod client_ca;
pub mod pem_file;
pub mod probes;
pub mod serve;
pub mod tls;
