//! Which files are images that can be read, which are images that cannot, and what is no image at all.

/// What the names of images that can be read end in.
const READ: [&str; 6] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp"];

/// What the names of images end in that cannot be read.
const OTHER_IMAGES: [&str; 34] = [
    "apng", "arw", "avif", "bmp", "cr2", "cr3", "dcm", "dib", "dng", "exr", "gif", "hdr", "heic", "heif",
    "hif", "ico", "j2k", "jp2", "jxl", "nef", "orf", "pbm", "pcx", "pgm", "pnm", "ppm", "psd", "qoi", "raf",
    "raw", "rw2", "svg", "tga", "tif",
];

/// The formats, for people.
pub(crate) const READ_NAMES: &str = "JPEG, PNG or WebP";

/// What systems and programs leave in folders, beside names that begin with a dot.
const LEFT_BY_SYSTEMS: [&str; 9] = [
    "__macosx",
    "@eadir",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "system volume information",
    "lost+found",
];

/// Whether a file or folder of this name is nobody's data.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || LEFT_BY_SYSTEMS.contains(&name.to_lowercase().as_str())
}

/// Whether files with this extension, in lower case, are read as images.
pub(crate) fn is_read(extension: &str) -> bool {
    READ.contains(&extension)
}

/// Whether files with this extension, in lower case, are images of a format that is not read.
pub(crate) fn is_other_image(extension: &str) -> bool {
    OTHER_IMAGES.contains(&extension) || extension == "tiff"
}

/// How to make images with this extension readable.
pub(crate) fn convert(extension: &str) -> String {
    format!(
        "convert them, for example with ImageMagick in their folder: magick mogrify -format png '*.{extension}'"
    )
}

/// What a file is that is no JPEG, PNG or WebP image, by its first bytes; `None` if they say nothing.
pub(crate) fn identify(bytes: &[u8]) -> Option<&'static str> {
    let image: &[(&[u8], &str)] = &[
        (b"GIF8", "a GIF image"),
        (b"II*\0", "a TIFF image or a camera's raw file"),
        (b"MM\0*", "a TIFF image or a camera's raw file"),
        (b"BM", "a BMP image"),
        (b"8BPS", "a Photoshop file"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"qoif", "a QOI image"),
    ];
    let other: &[(&[u8], &str)] = &[
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"\0\x05\x16\x07", "what macOS stores beside a file, not the file itself"),
    ];
    if let Some((_, what)) = image.iter().chain(other).find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(what);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "an AVIF image",
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
                "a HEIC image"
            }
            _ => "a video",
        });
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Some("a DICOM file");
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    if text.contains("<svg") {
        return Some("an SVG drawing");
    }
    (text.starts_with("<!doctype html") || text.starts_with("<html")).then_some("a web page")
}

/// Whether what [`identify`] says can be converted to an image that is read.
pub(crate) fn is_convertible(what: &str) -> bool {
    ["image", "icon", "drawing", "Photoshop", "DICOM"].iter().any(|word| what.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nobodys_data() {
        for name in [".DS_Store", "Thumbs.db", "._photo.jpg", "desktop.ini", "__MACOSX", ".git"] {
            assert!(is_hidden(name), "{name}");
        }
        assert!(!is_hidden("photo.jpg") && !is_hidden("db"));
    }

    #[test]
    fn the_first_bytes_tell() {
        for (bytes, what) in [
            (&b"GIF89a"[..], Some("a GIF image")),
            (b"\0\0\0\x18ftypheic\0\0", Some("a HEIC image")),
            (b"\0\0\0\x1cftypavif\0\0", Some("an AVIF image")),
            (b"\0\0\0\x14ftypqt  ", Some("a video")),
            (b"II*\0\x08", Some("a TIFF image or a camera's raw file")),
            (b"BM\x36", Some("a BMP image")),
            (b"\n <!DOCTYPE html><html>", Some("a web page")),
            (b"<?xml version='1.0'?><svg>", Some("an SVG drawing")),
            (b"version https://git-lfs.github.com", Some("a Git LFS pointer, not the file itself")),
            (b"some text", None),
            (b"", None),
        ] {
            assert_eq!(identify(bytes), what);
        }
        assert!(
            is_convertible("a HEIC image") && !is_convertible("a web page") && !is_convertible("a video")
        );
    }
}
