//! The brokers that are measured, as processes.

use crate::demo::processes::{STOP_WITH_STDIN, free_ports};
use miette::IntoDiagnostic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug)]
pub enum Which {
    Citybrain,
    Mosquitto,
}

pub fn mosquitto_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian has it where ordinary users do not look.
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    dirs.map(|d| d.join("mosquitto")).find(|p| p.is_file())
}

/// A broker's process; killed when dropped.
pub struct Broker {
    child: Child,
    pub port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> miette::Result<u16> {
    Ok(free_ports(1).into_diagnostic()?[0])
}

impl Broker {
    /// With an empty data folder.
    pub async fn start(which: Which, dir: &Path) -> miette::Result<Broker> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir).into_diagnostic()?;
        let port = free_port()?;
        let path = dir.join("config");
        let data = dir.display().to_string();
        let (text, mut command) = match which {
            Which::Citybrain => {
                let api = free_port()?;
                let text = format!(
                    "[node]\naddress = \"bench\"\ndata = {:?}\n[broker]\nlisten = \"127.0.0.1:{port}\"\nconnections_max = 10100\n\
                     [api]\nlisten = \"127.0.0.1:{api}\"\n[log]\nlevel = \"error\"\n",
                    format!("{data}/data")
                );
                let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
                // It ends with this process, however that ends.
                command.arg("run").arg("--config").arg(&path).env(STOP_WITH_STDIN, "1");
                (text, command)
            }
            Which::Mosquitto => {
                let text = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
                     persistence_location {data}/\nmax_queued_messages 0\nmax_inflight_messages 1024\nlog_type error\n\
                     user {}\n",
                    std::env::var("USER").unwrap_or_else(|_| "root".into())
                );
                let mut command = Command::new(mosquitto_path().ok_or_else(|| miette::miette!("it is gone"))?);
                command.arg("-c").arg(&path);
                (text, command)
            }
        };
        std::fs::write(&path, text).into_diagnostic()?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().into_diagnostic()?;
        let mut broker = Broker { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = broker.child.try_wait().into_diagnostic()? {
                miette::bail!("the broker ended: {status}");
            }
            if Instant::now() > deadline {
                miette::bail!("the broker does not listen after 10 s");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(broker)
    }

    fn proc(&self, file: &str) -> miette::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).into_diagnostic()
    }

    /// Bytes of memory that are its own.
    pub fn memory(&self) -> miette::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kb: f64 = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        Ok(kb * 1024.0)
    }

    /// µs of processor time since its start, to 10 ms.
    pub fn cpu_us(&self) -> miette::Result<f64> {
        let stat = self.proc("stat")?;
        // The name in brackets may have spaces; utime and stime are the 12th and 13th behind it.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default();
        // USER_HZ is 100 on every Linux.
        Ok((ticks(11) + ticks(12)) * 10_000.0)
    }
}
