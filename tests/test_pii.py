"""Placeholders stand for addresses and secrets, and for nothing that looks like them in code."""

import base64
import json
import random
import string

import pytest

from cleaning import licences, pii
from cleaning.view import CHINESE, CODE, PROSE, PYTHON

ALNUM = string.ascii_letters + string.digits


def replaced(text, kind=""):
    return pii.replaced(text, kind)[0]


# -- secrets


@pytest.mark.parametrize(
    "text",
    [
        'tokenizer = "EleutherAI/gpt-neox-20b"',
        'TOKEN_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"',
        'token = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"',
        'secret = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"',  # letters and digits that are not mistaken for each other
        'token = "qwertyuiopasdfghjklzxcvbnm1234567890"',
        'token = "mistralai/Mixtral-8x7B-v0-1"',
        'OPENAI_API_KEY = "sk-1234567890abcdef1234567890abcdef1234567890abcdef"',
        'token = "ghp_1234567890abcdefghijklmnopqrstuvwxyz"',
        'token = "facebook/wav2vec2-large-960h-lv60-self"',
        'access_key = "AKIAIOSFODNN7EXAMPLE"',  # as Amazon's own documents have it
        'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
        'tokenizer_name: "meta-llama/Llama-2-7b-chat-hf-with-noise-a8Xq29ZkP"',
        'secret_path = "projects/my-app/secrets/db-password-1"',
        'password = "projects/my-app/secrets/db-password-1"',
        'api_key = "YOUR_API_KEY_GOES_HERE_12345"',
        'api_key = "your-api-key-here-00000000"',
        'token = "xxxxxxxxxxxxxxxxxxxxxxxx1234"',
        'token = "1234567890abcdef1234567890abcdef"',
        'token = "{token}{secret}{0}{1}{password}"',
        "secret_ref = 'V1LocalObjectReference'",
        'token_type = "urn-ietf-params-oauth-grant-type-jwt2"',
        'access_token_url = "/oauth2/v1/access/token/request"',
        'SECRET = "MY_SERVICE_ACCESS_TOKEN_V2"',
        'request_token = "123e4567-e89b-12d3-a456-426614174000"',  # a UUID, as in bigcode's filters
        'token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
        'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
        'integrity = "sha512-kJ8qXz92nPqLm4TnB8wYc7RtUvXs3DfGhJk1Mn2Bv5Cx"',
        'class="sk-estimator-doc-link-hover-wrapper-2-of-3"',
        "hf_transferEnabledForAllDownloadsOfTheHub = True",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "tokens = 'aB3dE5gH7jK9mN1pQ3sT5vW7'",  # several tokens, such as a tokenizer's
    ],
)
def test_names_paths_alphabets_and_placeholders_are_no_secrets(text):
    assert pii.replaced(text + "\n") == (text + "\n", {})


def jwt(rng):
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": str(rng.random()), "name": "Jane Doe"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "".join(rng.choices(ALNUM + "_-", k=43))])


# name -> (how it begins, the characters and the number of what follows), as their owners document them
FORMATS = {
    "Amazon": ("AKIA", string.ascii_uppercase + "234567", 16),
    "GitHub": ("ghp_", ALNUM, 36),
    "GitHub, fine-grained": ("github_pat_", ALNUM + "_", 82),
    "GitLab": ("glpat-", ALNUM + "_-", 20),
    "OpenAI": ("sk-", ALNUM, 48),
    "OpenAI, of a project": ("sk-proj-", ALNUM + "_-", 74),
    "Anthropic": ("sk-ant-api03-", ALNUM + "_-", 95),
    "Google": ("AIza", ALNUM + "_-", 35),
    "Slack": ("xoxb-123456789012-123456789012-", ALNUM, 24),
    "Hugging Face": ("hf_", string.ascii_letters, 34),
    "Stripe": ("sk_live_", ALNUM, 24),
}


@pytest.mark.parametrize("name", FORMATS)
def test_keys_of_known_formats_are_found(name):
    rng, (start, chars, n) = random.Random(0), FORMATS[name]
    keys = [start + "".join(rng.choices(chars, k=n)) for _ in range(200)]
    found = [key for key in keys if key not in replaced(f"run({key})\n")]
    assert len(found) >= 0.95 * len(keys), "one Amazon key in 28 has no digit and may be a name"


def test_a_json_web_token_is_found():
    assert replaced(f"Authorization: Bearer {jwt(random.Random(0))}\n") == "Authorization: Bearer KEY\n"


@pytest.mark.parametrize(
    "chars, n, least",
    [
        (ALNUM, 24, 0.95),
        (ALNUM + "+/", 40, 0.99),
        (ALNUM + "_-", 43, 0.99),
        ("0123456789abcdef", 64, 0.99),
        (string.ascii_lowercase + string.digits, 32, 0.95),
    ],
)
def test_random_values_of_secret_names_are_found(chars, n, least):
    rng = random.Random(n)
    names = "password api_key client_secret apiKey token aws_secret_access_key ACCESS_TOKEN secret_key DB_PASSWORD_2".split()
    hidden = 0
    for i in range(300):
        value = "".join(rng.choices(chars, k=n))
        hidden += value not in replaced(f'{names[i % len(names)]} = "{value}"\n')
    assert hidden >= least * 300


def test_a_private_key_goes_in_a_string_too():
    lines = ["-----BEGIN PRIVATE KEY-----", *["MIIEpAIBAAKCAQEA7bq98hhMNu/x+"] * 4, "-----END PRIVATE KEY-----"]
    for text in ("\n".join(lines), json.dumps({"private_key": "\n".join(lines)})):
        assert "MIIE" not in replaced(text) and "BEGIN PRIVATE KEY-----KEY-----END" in replaced(text)


# -- addresses


@pytest.mark.parametrize(
    "text",
    [
        'ED25519 = ObjectIdentifier("1.3.101.112")',
        "<version>1.2.130.4</version>",
        '<PackageReference Include="X" Version="9.0.130.4" />',
        '[assembly: AssemblyVersion("1.2.130.4")]',
        '[assembly: AssemblyFileVersion("80.2.130.4")]',
        'numpy == 80.2.130.4 and "scipy>=80.2.130.4"',
        "user_agent = 'Chrome/120.0.130.4 Safari/90.1.130.4'",
        "release = '80.2.130.4'  # since v80.2.130.3",
        "if version in ('80.2.130.4', '80.2.131.0'):",
        "See IEEE Std 802.11-2016, 9.4.2.168, and section 80.4.130.2.",
        "#define OID_PSEUDONYM '2.5.4.65'",
        "'dotted': '1.2.156.101'  # of an algorithm",
        "## 4.15.130.77 (2020-01-02)",
        "## [80.4.130.2] - 2020-01-02",
        "assert parse('80.4.130.2') < parse('80.4.131.0')",
        "Mozilla Firefox 80.4.130.2, CUDA 80.4.130.2 and ChromeDriver (80.4.130.2)",
        '"driver": "^80.4.130.2", "chrome": "114.0.130.90"',
        "@since 80.4.130.2, compatible with 80.4.130.1; see table 80.4.130.2",
        "firmware 80.4.130.2",
        "image: nginx:80.4.130.2",
        "compile 'group:artifact:80.4.130.2'",
        "foo-80.2.130.4.tar.gz",
        '<path d="M11.1 12.08c-2.33-4.51-.5-8.48.53-10.07z" />',
        '<polygon points="80.4.130.2 90.5.131.3" />',
        "ping 10.0.0.1 172.16.0.9 192.168.1.77 127.0.0.1 255.255.255.255 203.0.113.9 198.51.100.7 8.8.8.8",
        "x = [1.5, 80.25, 130.125]",
        "at 12:34:56 and 2020:12:31:23:59:59",
        "ether 00:1a:2b:3c:4d:5e, fingerprint de:ad:be:ef:00:01:02:03",
        "std::dead::beef(a::b::c::d)",
        "x[::1], a[1::2], b[2000:3000:2]",
        "::1 fe80::1ff:fe23:4567:890a 2001:db8::8a2e:370:7334",
        "20 21 22:23:24:25:26:27:28",
    ],
)
def test_versions_identifiers_and_sections_are_no_addresses(text):
    assert pii.replaced(text + "\n") == (text + "\n", {})


@pytest.mark.parametrize(
    "text",
    [
        'HOST = "93.184.216.34"',
        "http://93.184.216.34:8080/index.html",
        "ssh root@93.184.216.34",
        "nameserver 93.184.216.34",
        'connect(("23.184.216.34", 80))',
        "server 23.184.216.34;",
        "allow_from: 23.184.216.0/24",
        "bind 23.184.216.34:443",
        '93.184.216.34 - - [10/Oct/2000:13:55:36] "GET / HTTP/1.0" 200',
        "# version 2 runs on the server 93.184.216.34",
        '{"ip": "23.184.216.34"}',
        "REMOTE_ADDR=23.184.216.34",
        "Trying 93.184.216.34... Connected to somebody",
        "Accepted publickey for root from 93.184.216.34",
    ],
)
def test_addresses_in_use_are_replaced(text):
    new, counts = pii.replaced(text + "\n")
    assert counts == {"ip": 1} and "192.0.2.1" in new and "184" not in new


def test_long_addresses_in_use_are_replaced():
    for text in ("2606:2800:220:1:248:1893:25c8:1946", "[2a00:1450:4001:81b::200e]:443"):
        assert pii.replaced(f"connect {text}\n")[1] == {"ip": 1}


# -- e-mail


@pytest.mark.parametrize(
    "text",
    [
        "y = x@layer.it",
        "y = hidden@layer.it + bias.it",
        "return query@keys.us",
        "loss += weights@gradient.me",
        "out = f(hidden@layer.it)",
        "out = (query@keys.us)@values.us",
        "print(self.x@self.layer.it)",
        "data@slot.name",
        "model.w@model.me",
        "y <- data@slot.info",
        "data@slot.info <- 5",
        "matrix@weights.T.com(1)",
        "this@Outer.info",
        "return@label.it",
        "git@github.com:owner/name.git",
        "scp file deploy@host.company.com:/srv/www",
        "ssh jane@host.company.com",
        "rsync -a -e ssh jane@host.company.com:backup .",
        "ssh://jane@host.company.com/srv",
        "option = b'Z@host.company.com/owner/name'",
        "https://jane:word@company.com/path",
        "npm install lodash@4.17.21 @scope/name@1.2.3",
        "docker pull img@sha256:0123",
        "call foo@plt",
        "@media print",
        "@app.route\ndef f(): pass",
        "$x@y.z and icon@2x.png",
        "xs@ys.us",
        "outs = [query@keys.us]",
        "if query@keys.us > 0:",
        "2 * query@keys.us",
    ],
)
@pytest.mark.parametrize("kind", ["", CODE, PROSE, PYTHON])
def test_products_slots_and_logins_are_no_addresses(text, kind):
    assert pii.replaced(text + "\n", kind) == (text + "\n", {})


def test_in_python_an_address_is_in_a_string_or_a_comment():
    text = 'y = total@company.com\nz = jane@uni.de\n"""jane@uni.de"""\n# jane@uni.de\n'
    assert (
        replaced(text, PYTHON) == 'y = total@company.com\nz = jane@uni.de\n"""name@example.com"""\n# name@example.com\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        'AUTHOR = "Jane Doe <jane.doe@company.com>"',
        "# Jane Doe (jane@uni-town.de)",
        "Write to jane@company.it, or call.",
        "maintainer: jane@company.co.uk",
        "email=jane@company.io",
        "* jane_doe@company.eu",
        "<a href='mailto:jane@company.de'>",
        "'j@x.it'",
        "(jane@company.de)",
    ],
)
def test_addresses_of_people_are_replaced(text):
    new, counts = pii.replaced(text + "\n")
    assert counts == {"email": 1} and "name@example.com" in new and "jane@" not in new


# -- twice is once

PARTS = [
    "jane@company.com", "x@layer.it", "ghp_" + "a1B2c3D4e5" * 4, "hf_" + "aBxQzKwP" * 5, "93.184.216.34", "1.3.101.112", "@",
    "2606:2800:220:1:248:1893:25c8:1946", "password = 'hR7kq2ZpX9vLm4TnB8wY'", "name", "KEY", ".com", "://", ":", "'", '"', " ",
    "\n", "=", "-", "# Copyright 2020 X\n", "-----BEGIN PRIVATE KEY-----" + "MIIEpAIBAAKC" * 5 + "-----END PRIVATE KEY-----", "(",
]  # fmt: skip


@pytest.mark.parametrize(
    "text, expected",
    [
        ("邮箱anna@qq.com的人", "邮箱name@example.com的人"),
        ("联系anna.li@x.edu.cn或者张三(电话)", "联系name@example.com或者张三(电话)"),
        ("日本のanna@mail.jpです", "日本のname@example.comです"),
        ("地址是120.3.200.5的机器", "地址是192.0.2.1的机器"),
        ("版本120.3.200.5的机器", "版本120.3.200.5的机器"),
        ("网址2400:cb00:2048:1::c629:d7a2上", "网址2001:db8::1上"),
        ("密钥AKIAQ7XK2MZP9RTB4WYC的", "密钥KEY的"),
        ("密钥sk-q8Xz92nPqLm4TnB8wYc7RtUvXs3DfGhJk1Mn2Bv5Cx的", "密钥KEY的"),
        # Other letters go on with a word. Half of an address would be left there.
        ("élan@x.com lan@x.comé ключanna@mail.ru", "élan@x.com lan@x.comé ключanna@mail.ru"),
    ],
)
@pytest.mark.parametrize("kind", ["", PROSE, CHINESE])
def test_languages_without_spaces_touch_what_is_replaced(text, expected, kind):
    assert replaced(text, kind) == expected


@pytest.mark.parametrize("kind", ["", CODE, PYTHON])
def test_replacing_twice_is_replacing_once(kind):
    """Whatever stands beside each other: a token in front of an @ too."""
    rng = random.Random(0)
    texts = ["".join(rng.choices(PARTS, k=6)) for _ in range(1500)] + [a + "@company.com" for a in PARTS]
    for text in texts:
        once = licences.without_license(replaced(text, kind))
        assert pii.replaced(once, kind) == (once, {}) and licences.without_license(once) == once, text
