//! A server that is none: it reads a frame's length and sends a canned reply of the right size. It
//! shares the network loops with the product and nothing else, so its cost is what the sockets
//! cost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use perigee_service::net::{self, ConnId, Consumed, Handler, LoopConfig, LoopControl, Net, Reads};
use perigee_wire::{PROTO_HEADER_BYTES, parse_proto_header};

use crate::error::BenchError;
use crate::frames::Frames;
use crate::options::{Common, EchoOptions, LoopName};

struct Echo {
    frames: Frames,
    write_frame_bytes: usize,
}

impl Handler for Echo {
    fn on_input(
        &mut self,
        _conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        _reads: &mut Reads,
    ) -> Consumed {
        let header = match parse_proto_header(input) {
            Ok(Some(header)) => header,
            Ok(None) => return Consumed::more(0),
            Err(_) => return Consumed::close(),
        };
        let end = PROTO_HEADER_BYTES + header.body_bytes;
        if input.len() < end {
            return Consumed::more(0);
        }
        output.extend_from_slice(match end == self.write_frame_bytes {
            true => &self.frames.write_reply,
            false => &self.frames.read_reply,
        });
        Consumed::more(end)
    }

    fn on_wake(&mut self, _net: &mut dyn Net) {}
}

/// The body of the echo process: prints its port, serves until its standard input ends.
pub fn serve(options: &EchoOptions) -> Result<(), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let control = LoopControl::new()?;
    let config = LoopConfig {
        listener: Some(listener),
        kind: options.common.loop_name.kind(),
        ..LoopConfig::default()
    };
    let stop = control.clone();
    std::thread::spawn(move || {
        // Ends when the parent does, however it ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.stop(Duration::ZERO);
    });
    let mut echo = Echo {
        frames: Frames::new(&options.common.frame_shape())?,
        write_frame_bytes: options.write_frame_bytes,
    };
    Ok(net::run(config, &control, &mut echo)?)
}

/// An echo server in a process of its own, so that its processor time is its own too. Dropping it
/// ends it.
pub struct EchoProcess {
    child: Child,
    pub address: SocketAddr,
}

impl EchoProcess {
    pub fn start(
        loop_name: LoopName,
        common: &Common,
        write_frame_bytes: usize,
    ) -> Result<Self, BenchError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["echo", "--loop", loop_name.name(), "--keys", "1"])
            .args(["--write-frame-bytes", &write_frame_bytes.to_string()])
            .args(["--object-size", &common.object_bytes().to_string()])
            .args(["--bins", &common.bins.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        match (read, line.trim().parse::<u16>()) {
            (Ok(_), Ok(port)) => Ok(Self {
                child,
                address: ([127, 0, 0, 1], port).into(),
            }),
            _ => {
                drop(child.stdin.take());
                Err(BenchError::Echo(format!(
                    "{} instead of a port",
                    child.wait()?
                )))
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
