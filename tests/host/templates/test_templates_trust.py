"""What templates trust for servers, whatever they are made of."""

import functools
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cove.host.authority import Authority, authority_problem, load_authority
from cove.host.templates.configuration import certificate_bundle
from cove.host.templates.trust import TrustLayers
from cove.models.errors import CoveError
from cove.models.templates import TemplateManifest
from cove.models.trust import AUTHORITY, BUNDLE


def _layer(directory: Path, name: str, bundle: str | None) -> str:
    layer = directory / name
    layer.mkdir()
    if bundle is not None:
        path = layer / BUNDLE.lstrip("/")
        path.parent.mkdir(parents=True)
        path.write_text(bundle)
    return str(layer)


def _template(*layers: str, own: int = 0) -> TemplateManifest:
    return TemplateManifest(
        name="t",
        display_name="T",
        description="",
        digest="d",
        layers=layers,
        own_layers=layers[:own],
        python="",
        built_at=datetime.now(UTC),
    )


def _seen(template: TemplateManifest, path: str) -> str:
    return Path(template.layers[0], path.lstrip("/")).read_text()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return load_authority(tmp_path / "authority")


@pytest.fixture
def trust(tmp_path: Path) -> TrustLayers:
    authority = functools.partial(load_authority, tmp_path / "authority")
    return TrustLayers(tmp_path / "trust", authority=authority, owner=None)


def test_on_top_of_what_the_template_trusts(tmp_path: Path, trust: TrustLayers, authority: Authority) -> None:
    base = _layer(tmp_path, "base", "of the base")
    shared = _template(_layer(tmp_path, "agent", None), base)
    found = trust.on_top_of(shared)
    assert found.layers[1:] == shared.layers
    assert found.own_layers == ()
    assert _seen(found, BUNDLE) == f"of the base\n{authority.certificate}"
    assert _seen(found, AUTHORITY) == authority.certificate
    assert trust.without(found) == shared
    assert trust.on_top_of(found) == found
    assert trust.on_top_of(_template(base)).layers[0] == found.layers[0]


def test_what_a_build_of_a_user_trusts_stays_trusted(tmp_path: Path, trust: TrustLayers, authority: Authority) -> None:
    own = _layer(tmp_path, "own", f"of the user\n{authority.certificate}")
    shared = Path(own, "usr/local/share")
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    found = trust.on_top_of(_template(own, _layer(tmp_path, "base", "of the base"), own=1))
    assert _seen(found, BUNDLE) == f"of the user\n{authority.certificate}"
    assert found.own_layers == (found.layers[0], own)
    assert Path(found.layers[0], "usr/local/share").stat().st_mode & 0o777 == 0o777


def test_no_link_leads_out_of_a_layer(tmp_path: Path, trust: TrustLayers, authority: Authority) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/ca-certificates.crt").write_text("of the host's own")
    for name, link in (("one", "etc/ssl/certs"), ("two", BUNDLE.lstrip("/"))):
        own = _layer(tmp_path, name, None)
        Path(own, link).parent.mkdir(parents=True)
        Path(own, link).symlink_to(tmp_path / "private" / Path(link).name.removeprefix("certs"))
        found = trust.on_top_of(_template(own, own=1))
        assert _seen(found, BUNDLE).endswith(authority.certificate)
        assert _seen(found, BUNDLE).startswith(certificate_bundle().read_text()[:100])


def test_a_new_authority_is_trusted_next_and_a_broken_one_refused(tmp_path: Path, trust: TrustLayers) -> None:
    template = _template(_layer(tmp_path, "base", "of the base"))
    before = trust.on_top_of(template)
    file = tmp_path / "authority/authority.pem"
    file.unlink()
    after = trust.on_top_of(before)
    assert after.layers[0] != before.layers[0]
    assert after.layers[1:] == template.layers
    assert authority_problem(file.parent) == ""
    file.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    assert "is damaged" in authority_problem(file.parent)
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    assert "does not hold" in authority_problem(file.parent)
    with pytest.raises(CoveError, match="does not hold a certificate and its key"):
        trust.on_top_of(template)
