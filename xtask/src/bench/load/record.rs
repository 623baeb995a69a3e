//! A relay that writes the bytes of each connection to files: `0.up` and `0.down` for the first one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::spawn;

use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Args {
    target: SocketAddr,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    for (number, client) in TcpListener::bind(args.listen)?.incoming().enumerate() {
        let client = client?;
        let service = TcpStream::connect(args.target)?;
        let file = |direction: &str| File::create(args.dir.join(format!("{number}.{direction}")));
        for (from, to, file) in [(&client, &service, file("up")?), (&service, &client, file("down")?)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            spawn(move || copy(from, to, file).ok());
        }
    }
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut file: File) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        file.write_all(&buffer[..length])?;
        to.write_all(&buffer[..length])?;
    }
}
