//! Its `podman`.

use super::*;

/// Where podman finds containers.
const CONTAINERS: &str = "/etc/containers/systemd";

impl State {
    pub(super) fn podman(&mut self, args: &[&str]) -> Result<String, HostError> {
        if self.version_of("podman").is_none() {
            return Err(ExecError::Missing { program: "podman".to_owned(), package: None }.into());
        }
        match args {
            ["image", "exists", image] if self.machine.images.contains(*image) => Ok(String::new()),
            ["image", "exists", _] => Err(refused(1, "")),
            ["image", "rm", image] if !self.machine.images.contains(*image) => {
                Err(refused(1, format!("Error: {image}: image not known")))
            }
            ["image", "rm", image] if self.runs(image) => {
                Err(refused(2, format!("Error: image used by 1: image is in use by a container: {image}")))
            }
            ["image", "rm", image] => {
                self.burn("podman image rm")?;
                self.machine.images.remove(*image);
                Ok(String::new())
            }
            ["pull", "--quiet", image] => {
                self.burn("podman pull")?;
                if !self.registry.contains(*image) {
                    let reason = "reading manifest: manifest unknown";
                    return Err(refused(
                        125,
                        format!("Error: initializing source docker://{image}: {reason}"),
                    ));
                }
                self.machine.images.insert((*image).to_owned());
                Ok(String::new())
            }
            _ => Err(error(format!("podman: {args:?}"))),
        }
    }

    fn runs(&self, image: &str) -> bool {
        self.machine.containers.values().any(|of| of == image)
    }

    /// The image of a unit that is a container.
    pub(super) fn image_of(&self, unit: &str) -> Option<String> {
        let text = self.text(&format!("{CONTAINERS}/{}.container", unit.strip_suffix(".service")?));
        text.lines().find_map(|line| line.strip_prefix("Image=")).map(str::to_owned)
    }
}
