//! Which device is used, and what is said about it. Pure.

use crate::runtime_settings::Device;

/// How to get a library that can use GPUs.
const GPU_BUILD_HINT: &str = "get its GPU build with `python3 deploy/onnxruntime.py --variant cuda --directory DIR`, and name it with --onnxruntime DIR";

/// Words of the CUDA provider's errors, and what they mean.
const KNOWN_ERRORS: [(&[&str], &str); 7] = [
    (&["cuDNN is not available"], "cuDNN was not found: install cuDNN 9, or name its directory with --cuda-libraries"),
    (&["is smaller than requested bytes"], "--gpu-memory-limit is too small for this model"),
    (&["no CUDA-capable device", "CUDA failure 100:"], "the driver knows no GPU"),
    (&["invalid device ordinal", "CUDA failure 101:", "Invalid device ID"], "there is no GPU of this number"),
    (&["driver version is insufficient", "CUDA failure 35:"], "the NVIDIA driver is too old for CUDA 13"),
    (&["out of memory", "CUDA failure 2:", "Failed to allocate memory"], "its memory is taken"),
    (&["no kernel image is available", "CUDA failure 209:"], "this build of ONNX Runtime has no code for such a GPU"),
];

/// Longest repeated message, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// Where models run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeviceChoice {
    /// On the cores. Where a GPU could not be used that the library is made for: why.
    Cpu { fallback_reason: Option<String> },
    /// On these GPUs; `strict` if nowhere else.
    Gpus { device_ids: Vec<u32>, strict: bool },
}

/// Chooses among the devices of this machine. `try_gpu` gives the reason why a GPU cannot be used; it runs for requested
/// GPUs only.
///
/// # Errors
/// One sentence, if GPUs are named and not all of them can be used.
pub(super) fn choose_device(
    requested: &Device,
    has_provider: bool,
    mut try_gpu: impl FnMut(u32) -> Result<(), String>,
) -> Result<DeviceChoice, String> {
    match requested {
        Device::Cuda(_) if !has_provider => {
            Err(format!("--device {requested}: this ONNX Runtime has no CUDA provider: {GPU_BUILD_HINT}"))
        }
        Device::Cuda(gpus) => {
            for &gpu in gpus {
                try_gpu(gpu).map_err(|reason| format!("--device {requested}: GPU {gpu} cannot be used: {reason}"))?;
            }
            Ok(DeviceChoice::Gpus { device_ids: gpus.clone(), strict: true })
        }
        Device::Auto if has_provider => Ok(match try_gpu(0) {
            Ok(()) => DeviceChoice::Gpus { device_ids: vec![0], strict: false },
            Err(reason) => DeviceChoice::Cpu { fallback_reason: Some(reason) },
        }),
        // A library for cores only was chosen by an operator: nothing is missing.
        Device::Auto | Device::Cpu => Ok(DeviceChoice::Cpu { fallback_reason: None }),
    }
}

/// What an error of the CUDA provider means, in one plain sentence without paths: `/health` repeats it.
pub(super) fn explain_error(message: &str) -> String {
    if let Some(library) = missing_library(message) {
        return match library {
            _ if library.starts_with("libcuda.so") => format!("there is no NVIDIA driver ({library} was not found)"),
            _ if library.starts_with("libonnxruntime") => format!("{library} does not lie beside ONNX Runtime"),
            _ => format!(
                "{library} was not found: install CUDA 13 and cuDNN 9, or name their directory with --cuda-libraries"
            ),
        };
    }
    let known_error = KNOWN_ERRORS.iter().find(|(words, _)| words.iter().any(|word| message.contains(word)));
    known_error.map_or_else(|| shorten_message(message), |&(_, meaning)| meaning.to_owned())
}

/// The short form of an unknown message: CUDA's own words, or a line without directories.
fn shorten_message(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let from_cuda = line.find("CUDA failure").and_then(|start| line.get(start..));
    let line = from_cuda.map_or(line, |message| message.split(" ;").next().unwrap_or(message));
    let words: Vec<&str> = line.split(' ').map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
    words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect()
}

/// The library that the loader did not find, if that is what is wrong.
fn missing_library(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": cannot open shared object file")?;
    let name = before.rsplit([' ', '/', ':', '"']).next()?;
    name.starts_with("lib").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_DRIVER: &str = "Failed to load library libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open shared object file: No such file or directory";

    fn unexpected_gpu_test(_: u32) -> Result<(), String> {
        panic!("no GPU is wanted")
    }

    #[test]
    fn device_cpu_chosen_without_gpu_test() {
        for has_provider in [false, true] {
            assert_eq!(
                choose_device(&Device::Cpu, has_provider, unexpected_gpu_test),
                Ok(DeviceChoice::Cpu { fallback_reason: None })
            );
        }
    }

    #[test]
    fn device_auto_uses_gpu_or_reports_fallback() {
        assert_eq!(
            choose_device(&Device::Auto, false, unexpected_gpu_test),
            Ok(DeviceChoice::Cpu { fallback_reason: None })
        );
        assert_eq!(
            choose_device(&Device::Auto, true, |_| Ok(())),
            Ok(DeviceChoice::Gpus { device_ids: vec![0], strict: false })
        );
        let found = choose_device(&Device::Auto, true, |_| Err("it is hot".to_owned()));
        assert_eq!(found, Ok(DeviceChoice::Cpu { fallback_reason: Some("it is hot".to_owned()) }));
    }

    #[test]
    fn device_named_gpus_used_all_or_none() {
        let requested = Device::Cuda(vec![0, 2]);
        assert_eq!(
            choose_device(&requested, true, |_| Ok(())),
            Ok(DeviceChoice::Gpus { device_ids: vec![0, 2], strict: true })
        );
        let second = |gpu| if gpu == 2 { Err("it is gone".to_owned()) } else { Ok(()) };
        let error = choose_device(&requested, true, second).unwrap_err();
        assert_eq!(error, "--device cuda:0,2: GPU 2 cannot be used: it is gone");
        let error = choose_device(&requested, false, unexpected_gpu_test).unwrap_err();
        assert!(error.starts_with("--device cuda:0,2: this ONNX Runtime has no CUDA provider: "), "{error}");
    }

    #[test]
    fn cuda_errors_explained_without_paths() {
        for (message, meant) in [
            (NO_DRIVER, "no NVIDIA driver (libcuda.so.1 was not found)"),
            (
                "x: /opt/lib/libcublasLt.so.13: cannot open shared object file: No such",
                "libcublasLt.so.13 was not found: install",
            ),
            ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "the driver knows no GPU"),
            ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "too old"),
            ("CUDA failure 101: invalid device ordinal ; GPU=7", "no GPU of this number"),
            ("CUDA failure 2: out of memory ; GPU=0", "memory is taken"),
            ("node /a/secret: cuDNN is not available. Install cuDNN, or", "cuDNN was not found: install cuDNN 9"),
            ("Available memory of 1 is smaller than requested bytes of 2", "--gpu-memory-limit is too small"),
            ("Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).", "no GPU of this number"),
            (
                "CUDA failure 3: initialization error ; GPU=-1 ; file=/secret/x.cc",
                "CUDA failure 3: initialization error",
            ),
            ("at /a/secret/cuda_call.cc:129 something new\nmore", "at cuda_call.cc:129 something new"),
        ] {
            let error = explain_error(message);
            assert!(error.contains(meant) && !error.contains("secret") && !error.contains('\n'), "{message}: {error}");
        }
    }
}
