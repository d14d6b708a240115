"""Whether the servers of a data set answer, asked the way that the download will go, and what a failure means."""

import errno
import queue
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit

PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<meta")     # how the pages of a login begin


def proxies():
    """Return {"http": proxy, "https": proxy}, those that are named by the environment or by the system's settings.

    `all_proxy` stands in for one that is not named; it may be no SOCKS proxy, which torchvision cannot use.
    """
    found = urllib.request.getproxies()
    other = found.get("all", "")
    other = "" if other.startswith("socks") else other
    return {scheme: proxy for scheme in ("http", "https") if (proxy := found.get(scheme) or other)}


def proxy_of(url):
    """Return the "host:port" of the proxy that a request for `url` takes, without its password, or None."""
    parts = urlsplit(url)
    proxy = proxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return without_password(proxy)


def without_password(proxy):
    """Return the "host:port" of a proxy, which may be an address or "host:port", with a name and password or not."""
    return proxy.rpartition("://")[2].rpartition("@")[2].rstrip("/")


def why_silent(urls, seconds=15):
    """Return "" as soon as one of the servers answers, else why none does; never takes longer than `seconds`."""
    if proxies():       # torchvision keeps those that were set when it first opened an address, and no all_proxy
        urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler(proxies())))
    heard, reasons, end = queue.SimpleQueue(), [], time.monotonic() + seconds
    for url in urls:    # threads, because a name server that hangs ignores the time-out
        threading.Thread(target=lambda url=url: heard.put(knock(url)), daemon=True).start()
    with suppress(queue.Empty):
        for _ in urls:
            reasons.append(heard.get(timeout=max(0, end - time.monotonic())))
            if not reasons[-1]:
                return ""
    reasons = "; ".join(dict.fromkeys(reasons)) or f"in {seconds} seconds"
    hint = "" if any(map(proxy_of, urls)) else "; where a proxy leads out, set http_proxy and https_proxy"
    return f"no server answers: {reasons}{hint}"


def knock(url, seconds=10):
    """Ask the server of `url`, by the proxy if there is one; return "" if it answers, else why it does not."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
    except HTTPError as error:      # an answer as well, unless it is the proxy's, which did not get through
        return reason_of(error, url) if error.code in (407, 502, 503, 504) else ""
    except (OSError, HTTPException, ValueError) as error:
        return reason_of(error, url)
    return ""


def reason_of(error, url):
    """Say why `url` was not reached, and what helps where that is known."""
    proxy, cause = proxy_of(url), getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (f"the certificate of {urlsplit(url).hostname} is not trusted ({cause.verify_message}): if the network "
                "has a login page, log in with a browser; if its proxy opens encrypted connections, set SSL_CERT_FILE "
                "to the file of its certificate; on a Mac run 'Install Certificates.command' of your Python")
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if proxy and "407" in f"{getattr(error, 'code', '')} {text}":
        return f"the proxy {proxy} wants a name and password: set http_proxy and https_proxy to http://NAME:PASSWORD@{proxy}"
    return f"the proxy {proxy}: {text}" if proxy else text


def web_page(folder):
    """Return the name of a file in `folder`, or below, that is a web page, such as one for a login, or None."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            if file.read(200).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE):
                return path.name
    return None


def trouble_with(folder, error):
    """Say what helps against an error of the disk or of its rights in `folder`; "" for any other error."""
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"you may not write to {folder}"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room left for {folder}"
    return ""
