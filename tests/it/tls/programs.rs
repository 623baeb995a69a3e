//! nginx, HAProxy and stunnel on either side: each terminates what we originate, and originates what we terminate, with certificates
//! on both sides.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambassador::ending::Ending;
use ambassador::tls::CertificateFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{App, PATIENCE, Service};
use crate::support::{Ca, VALID, private_ip, skip, within};

/// A program between two routes of ours, which has the certificate `program`; killed when dropped.
struct Program {
    child: Child,
    dir: tempfile::TempDir,
}

/// What the configuration of a program needs.
struct Setting<'a> {
    /// Where it terminates TLS, for the service.
    terminates: SocketAddr,
    service: SocketAddr,
    /// Where it originates TLS, to our route `x`.
    originates: SocketAddr,
    ours: SocketAddr,
    cert: PathBuf,
    ca: &'a Path,
}

impl Program {
    fn start(program: &str, args: &[&str], config: &str, setting: &Setting<'_>) -> Result<Program, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let log = dir.path().join("log");
        fs::write(&file, config.replace("LOG", log.to_str().unwrap())).unwrap();
        let output = fs::File::create(dir.path().join("output")).unwrap();
        let mut command = Command::new(program);
        command.args(args).arg(&file).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let program = Program { child, dir };
        within(Duration::from_secs(10), "it listens", || {
            let connected =
                [setting.terminates, setting.originates].map(|addr| TcpStream::connect(addr).is_ok());
            if connected == [true, true] { Ok(()) } else { Err(program.output()) }
        });
        Ok(program)
    }

    fn output(&self) -> String {
        ["output", "log"]
            .map(|name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn addr(port: u16) -> SocketAddr {
    format!("{}:{port}", private_ip()).parse().unwrap()
}

/// Exchanges bytes in both directions at once, and expects them back unchanged.
async fn echo(addr: SocketAddr, length: usize) {
    let sent: Vec<u8> = (0..length).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
    let (mut read, mut write) = tokio::net::TcpStream::connect(addr).await.unwrap().into_split();
    let mut greeting = [0; 2];
    read.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hi");
    let mut echo = vec![0; length];
    let both = async { tokio::join!(write.write_all(&sent), read.read_exact(&mut echo)) };
    let (written, received) = tokio::time::timeout(PATIENCE, both).await.expect("an echo in time");
    written.unwrap();
    received.unwrap();
    assert!(echo == sent);
}

/// Runs sessions through a program in both directions. Returns its output.
async fn through(
    program: &str,
    args: &[&str],
    config: impl Fn(&Setting<'_>) -> String,
) -> Result<String, String> {
    let (ca, service) = (Ca::new(), Service::named("hi").await);
    let named = |name: &str, serial| CertificateFiles {
        name: name.to_owned(),
        cert: ca.issue(name, serial, VALID),
        key: None,
    };
    let (terminates, originates, file) = (addr(7001), addr(7002), ca.ca().display().to_string());
    let ours =
        format!("127.0.0.1:0={}?name=x&tls=service&tls-ca={file}&tls-peers=program,other", service.addr);
    let theirs = format!("{}:0=tls://{terminates}?name=r&ca={file}&sni=program&cert=consumer", private_ip());
    let app = App::with(&[&ours, &theirs], |settings| {
        settings.settings.certificates = vec![named("service", 1), named("consumer", 2)];
        // Tickets are those of a worker.
        settings.settings.workers = std::num::NonZeroUsize::MIN;
    })
    .await;
    let cert = ca.issue("program", 3, VALID);
    let setting =
        Setting { terminates, service: service.addr, originates, ours: app.addr("x"), cert, ca: &ca.ca() };
    let program = Program::start(program, args, &config(&setting), &setting)?;
    for length in [1, 100_000, 3 << 20] {
        echo(app.addr("r"), length).await;
        echo(originates, length).await;
    }
    app.await_ended("r", Ending::Finished, 3).await;
    // The program was probed until it listened, perhaps through our route.
    crate::app::eventually("three sessions", || app.ended("x", Ending::Finished) >= 3).await;
    Ok(program.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_on_either_side() {
    let config = |Setting { terminates, service, originates, ours, cert, ca }: &Setting<'_>| {
        let (cert, ca) = (cert.display(), ca.display());
        format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
            daemon off; master_process off; error_log stderr; pid /dev/null;
            events {{}}
            stream {{
                log_format reuse 'reused=$ssl_session_reused $ssl_protocol $ssl_client_s_dn';
                server {{
                    listen {terminates} ssl; access_log LOG reuse; proxy_pass {service};
                    ssl_certificate {cert}; ssl_certificate_key {cert}; ssl_protocols TLSv1.2 TLSv1.3;
                    ssl_client_certificate {ca}; ssl_verify_client on; ssl_session_cache shared:a:1m;
                }}
                server {{
                    listen {originates}; proxy_pass {ours}; proxy_ssl on;
                    proxy_ssl_certificate {cert}; proxy_ssl_certificate_key {cert};
                    proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name service;
                    proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;
                }}
            }}"
        )
    };
    let output = match through("/usr/sbin/nginx", &["-c"], config).await {
        Ok(output) => output,
        Err(why) => skip!(why),
    };
    assert!(output.contains("TLSv1.3 CN=consumer"), "{output}");
    assert!(output.contains("reused=r"), "later sessions are resumed: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_on_either_side() {
    let config = |Setting { terminates, service, originates, ours, cert, ca }: &Setting<'_>| {
        let (cert, ca) = (cert.display(), ca.display());
        format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen terminates\n bind {terminates} ssl crt {cert} ca-file {ca} verify required\n server s {service}\n\
             listen originates\n bind {originates}\n \
             server s {ours} ssl crt {cert} ca-file {ca} verify required sni str(service) verifyhost service\n"
        )
    };
    if let Err(why) = through("/usr/sbin/haproxy", &["-db", "-f"], config).await {
        skip!(why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stunnel_on_either_side() {
    let config = |Setting { terminates, service, originates, ours, cert, ca }: &Setting<'_>| {
        let (cert, ca) = (cert.display(), ca.display());
        format!(
            "foreground = yes\npid =\ncert = {cert}\nCAfile = {ca}\nverifyChain = yes\n\
             [terminates]\naccept = {terminates}\nconnect = {service}\nrequireCert = yes\n\
             [originates]\nclient = yes\naccept = {originates}\nconnect = {ours}\nsni = service\ncheckHost = service\n"
        )
    };
    if let Err(why) = through("/usr/bin/stunnel4", &[], config).await {
        skip!(why);
    }
}
