//! TLS on routes and to endpoints: against OpenSSL and the proxies that people have, and against hostile peers. The tests of `relay`
//! run over TLS, too.

mod clients;
mod endpoints;
mod files;
mod hostile;
mod openssl;
mod programs;
