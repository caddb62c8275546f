//! A process that gets no more memory.

use std::{fs, os::unix::process::ExitStatusExt, time::Duration};

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{config, process::Process, told_by_all};
use crate::fixture::{caller::Caller, echo::Echo};

/// Bytes of address space that a process has.
fn size(process: &Process) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", process.child.id().unwrap()));
    statm.unwrap().split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn a_process_without_memory_ends_loudly_or_goes_on_to_tell_the_truth() {
    let echo = Echo::start().await;
    for room in [0, 64 << 10, 1 << 20, 4 << 20] {
        let name = format!("memory_{room}");
        let mut process = Process::start(&name, &config(echo.address(), "")).await;
        told_by_all(&process, true).await;
        let most = Some(size(&process) + room);
        prlimit(Some(process.pid()), Resource::As, Rlimit { current: most, maximum: most })
            .unwrap();
        // Bodies that wait for an endpoint that takes none.
        let mut callers = Vec::new();
        for _ in 0..40 {
            // It may end at any moment.
            let address = process.address("otlp");
            let connect = async {
                let stream = TcpStream::connect(address).await.ok()?;
                Caller::over(stream, address).await.ok()
            };
            let connected = timeout(Duration::from_secs(1), connect).await;
            let Some(mut caller) = connected.ok().flatten() else { break };
            if let Ok(mut call) = caller.open("/test.Echo/Sink").await {
                _ = call.request.send_data(vec![0; 256 << 10].into(), false);
                callers.push((caller, call));
            }
        }
        sleep(Duration::from_secs(1)).await;
        let ended = timeout(Duration::from_millis(10), process.child.wait()).await;
        match ended {
            Ok(status) => {
                let status = status.unwrap();
                let abort = Signal::ABORT.as_raw();
                assert!(status.code() == Some(70) || status.signal() == Some(abort), "{status}");
                let said = process.rest().await;
                let why = ["memory allocation of", "panicked"];
                assert!(why.iter().any(|it| said.contains(it)), "{said}");
            }
            Err(_) => {
                drop(callers);
                told_by_all(&process, true).await;
                process.stop().await;
            }
        }
    }
}
