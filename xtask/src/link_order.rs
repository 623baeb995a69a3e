//! `cargo xtask link-order`: which functions run when the program starts, as a script for the linker.
//!
//! `build.rs` says what it is for. Which instructions run is valgrind's to say, and in which section of which object they
//! are the linker's. Hashes of crates become `*`, so that the order outlives an update of the dependencies; what it names and
//! is not there any more does no harm.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regex::Regex;
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Signal, kill_process};

use crate::image::{self, Profile, target_dir};
use crate::process::{eventually, output, output_with};
use crate::sudo::as_user;

const SCRIPT: &str = "link-order.ld";
const HEAD: &str = "\
/* What runs when the program starts, and then what runs when it serves. Written by `cargo xtask link-order`; build.rs says what for. */
SECTIONS
{
  .text.start :
  {
";
const FOOT: &str = "\
  }
}
INSERT BEFORE .text;
";
/// Valgrind makes it some fifty times slower.
const START: Duration = Duration::from_secs(60);
/// The allocator gives back after a second what is not used any more.
const IDLE: Duration = Duration::from_secs(3);
/// Fewer than a listener keeps waiting.
const CONNECTIONS: usize = 100;
const BULK: usize = 8 << 20;
const ADMIN: &str = "AMBASSADOR_ADMIN";
/// What runs only when two threads meet, and on other processors than the one that valgrind is.
const ALSO: &[&str] = &["*(.text._rjem_je_malloc_mutex_lock_slow)", "*libc.a:strcmp-*(.text .text.*)"];
/// At an address of the loopback that nobody else is at.
const ROUTE: &str = "127.78.0.1:7000";
const RANGE: &str = "127.78.0.1:7001-7100=127.78.0.2";
const NOBODY: &str = "127.78.0.1:7100";

pub(crate) fn run() -> Result<()> {
    let dir = std::path::absolute(target_dir().join("link-order"))?;
    let map = dir.join("map");
    let flags = format!("{} -C link-arg=-Wl,-Map={}", image::FLAGS, map.display());
    // Valgrind knows the program's addresses where its code is in one section.
    let environment = [("RUSTFLAGS", flags.as_str()), ("AMBASSADOR_LINK_ORDER", "off")];
    let program = image::build_in(Profile::Dist, &dir, &environment)?;
    let map = read_to_string(&map)?;
    let ran = |serve: fn(&mut Command, &TcpListener) -> Result<()>| {
        patterns(&map, &executed(&program, &dir.join("callgrind"), serve)?)
    };
    let started = ran(|_, _| Ok(()))?;
    ensure!(!started.is_empty(), "nothing that ran is in the linker's map");
    let mut served = ran(serve)?;
    served.extend(ALSO.iter().map(|&pattern| pattern.to_owned()));
    let sections: Vec<&String> = started.iter().chain(served.difference(&started)).collect();
    let lines: String = sections.iter().map(|section| format!("    {section}\n")).collect();
    output_with(as_user("tee").arg(SCRIPT), [HEAD, &lines, FOOT].concat().into_bytes())?;
    println!("{SCRIPT}: {} sections, {} of them of the start", sections.len(), started.len());
    Ok(())
}

/// The addresses of the instructions that a start, this and an end take.
fn executed(
    program: &Path,
    out: &Path,
    serve: fn(&mut Command, &TcpListener) -> Result<()>,
) -> Result<BTreeSet<u64>> {
    eprintln!("link-order: running it under valgrind");
    let endpoint = TcpListener::bind("127.0.0.1:0")?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--dump-instr=yes", "--compress-pos=no"]);
    valgrind.args(["--compress-strings=no", &format!("--callgrind-out-file={}", out.display())]);
    valgrind.arg(program).args(["--workers", "1", "--log-level", "warn"]);
    valgrind.args([format!("{ROUTE}={}", endpoint.local_addr()?), RANGE.to_owned()]);
    let admin = format!("unix:{}.sock", out.display());
    // With our variables beside it: a start sorts those it was given, and few are sorted by other code than many.
    valgrind.env(ADMIN, &admin);
    let mut process = valgrind
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run valgrind, which `cargo xtask test` installs")?;
    let served = started(&endpoint, &mut process)
        .and_then(|()| serve(Command::new(program).env(ADMIN, &admin), &endpoint));
    kill_process(Pid::from_child(&process), Signal::TERM)?;
    let status = process.wait()?;
    served?;
    ensure!(status.success(), "valgrind: {status}");
    Ok(addresses(&read_to_string(out)?))
}

/// Until it listens, and is idle.
fn started(endpoint: &TcpListener, process: &mut Child) -> Result<()> {
    let up = || TcpStream::connect(ROUTE).is_ok() || !matches!(process.try_wait(), Ok(None));
    ensure!(eventually(START, up)? && process.try_wait()?.is_none(), "the program does not listen");
    endpoint.accept()?;
    sleep(IDLE);
    Ok(())
}

/// Connections that come and go together; each has a request, one moves much, and either side ends it, by FIN or RST. One
/// finds nobody. Then what a container's health check asks.
fn serve(ambassador: &mut Command, endpoint: &TcpListener) -> Result<()> {
    let in_vain = TcpStream::connect(NOBODY)?;
    let clients = (0..CONNECTIONS).map(|_| TcpStream::connect(ROUTE)).collect::<Result<Vec<_>, _>>()?;
    let mut lines =
        clients.into_iter().map(|client| answered(client, endpoint)).collect::<Result<Vec<_>>>()?;
    let (client, server) = lines.first_mut().context("no connection")?;
    exchange(client, server, &[1; BULK])?;
    exchange(server, client, &[1; BULK])?;
    for (index, (client, server)) in lines.into_iter().enumerate() {
        let (first, last) = if index % 2 == 0 { (client, server) } else { (server, client) };
        if index % 8 > 5 {
            set_socket_linger(&first, Some(Duration::ZERO))?;
        }
        drop(first);
        drop(last);
    }
    sleep(IDLE);
    drop(in_vain);
    output(ambassador.arg("health"))?;
    Ok(())
}

/// Connections arrive in the order in which they began.
fn answered(mut client: TcpStream, endpoint: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let (mut server, _) = endpoint.accept()?;
    exchange(&mut client, &mut server, b"?")?;
    exchange(&mut server, &mut client, b"!")?;
    Ok((client, server))
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    to.set_read_timeout(Some(START))?;
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| from.write_all(bytes));
        let received = to.read_exact(&mut vec![0; bytes.len()]);
        sent.join().ok().context("the sender panicked")??;
        Ok(received?)
    })
}

/// The lines of cost in callgrind's output begin with the address, counted from the beginning of its object. Others than the
/// program, which is static, are the kernel's few pages, whose addresses are smaller than those of any code of it.
fn addresses(text: &str) -> BTreeSet<u64> {
    let address = |line: &str| {
        let (hex, _) = line.strip_prefix("0x")?.split_once(' ')?;
        u64::from_str_radix(hex, 16).ok()
    };
    text.lines().filter_map(address).collect()
}

/// Of the sections that were executed, as a linker's script names them. The lines of LLD's map are
/// `VMA LMA Size Align Object:(Section)`, and of an archive `Archive(Object):(Section)`.
fn patterns(map: &str, executed: &BTreeSet<u64>) -> Result<BTreeSet<String>> {
    let line = Regex::new(r"(?m)^ *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +[0-9]+ +(.*):\((\.text[^)]*)\)$")?;
    let archive = Regex::new(r"([^/]+\.a)\(([^)]+)\)$")?;
    // Of a crate, RFC 2603; and a number of the compiler's.
    let hash = Regex::new(r"(Cs)[0-9A-Za-z]+_|(\.)[0-9]+")?;
    let mut patterns = BTreeSet::new();
    for found in line.captures_iter(map) {
        let (_, [address, size, object, section]) = found.extract();
        let address = u64::from_str_radix(address, 16)?;
        let addresses: Range<u64> = address..address + u64::from_str_radix(size, 16)?;
        if executed.range(addresses).next().is_none() {
            continue;
        }
        if let Some(found) = archive.captures(object) {
            // The C library has an object for each of its functions, of some one for each kind of processor:
            // `memmove-avx-unaligned-erms.o`.
            patterns.insert(match found[2].split_once('-') {
                Some((function, _)) => format!("*{}:{function}-*(.text .text.*)", &found[1]),
                None => format!("*{}:{}({section})", &found[1], &found[2]),
            });
        } else if section != ".text" {
            patterns.insert(format!("*({})", hash.replace_all(section, "$1$2*")));
        }
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::{addresses, patterns};

    const MAP: &str = "             VMA              LMA     Size Align Out     In      Symbol
          1c0a00           1c0a00   52db28    64 .text
          1c0a00           1c0a00       22    16         /usr/lib/rcrt1.o:(.text)
          1c0aa9           1c0aa9       2b     1         /t/a-12ab.rcgu.o:(.text._RNvCsfLfy6EI15iL_7___rustc12___rust_alloc)
          1c0aa9           1c0aa9       2b     1                 __rust_alloc
          1c0ad4           1c0ad4       10     1         /t/a-12ab.rcgu.o:(.text._RNvCsfLfy6EI15iL_3foo.215)
          1c0af0           1c0af0       b9    16         /usr/lib/libc.a(exit.o):(.text)
          1c0bb0           1c0bb0       10    16         /usr/lib/libc.a(strlen-avx2.o):(.text.avx)
";

    #[test]
    fn what_ran_is_named_without_hashes_and_what_did_not_is_not_named() {
        let named = |executed: &[u64]| {
            patterns(MAP, &executed.iter().copied().collect()).unwrap().into_iter().collect::<Vec<_>>()
        };
        assert!(named(&[0x1c_09ff, 0x1c_0a00]).is_empty(), "nothing, and the C runtime's first");
        assert_eq!(named(&[0x1c_0aa9, 0x1c_0aaa]), ["*(.text._RNvCs*7___rustc12___rust_alloc)"]);
        assert_eq!(named(&[0x1c_0ad4]), ["*(.text._RNvCs*3foo.*)"]);
        assert_eq!(named(&[0x1c_0af0]), ["*libc.a:exit.o(.text)"]);
        assert_eq!(named(&[0x1c_0bb0]), ["*libc.a:strlen-*(.text .text.*)"]);
    }

    #[test]
    fn an_instruction_is_the_address_before_a_cost() {
        let text = "positions: instr line\nob=/a\nfn=x\n0x10 0 1\ncalls=1 0x20 0\n0x11 0 5\nfn=0x30\n";
        assert_eq!(addresses(text).into_iter().collect::<Vec<_>>(), [0x10, 0x11]);
    }
}
