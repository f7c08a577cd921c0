"""Puts the templates together from the pieces that they share: `python deploy/aws/build.py`, after a change of either.

    pieces/*.yaml    sections of CloudFormation templates (Parameters, Conditions, Resources, ...)
    scripts/*        what runs on an instance, and ../systemd/
      -> user-data.sh           the scripts as one, for Terraform as well
      -> single.yaml, scale-out.yaml

CloudFormation can include files only from a bucket; a template that is one file needs nothing but itself. Pieces are
joined as text, section by section, so that comments stay.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
SYSTEMD = HERE.parent / "systemd"
_SINGLE = {
    "GENEVE_PORT": ["off"],
    "GENEVE_VALUE": [],
    "METRICS_ADDRESS": ["${MetricsHost}:9478"],
    "METRICS_VALUE": ["MetricsHost: !If [HasMetricsCidr, 0.0.0.0, 127.0.0.1]"],
    "SIGNAL_RESOURCE": ["Instance"],
    "GROUP_NAME": [""],
    "HOOK_NAME": [""],
    "SECURITY_GROUPS": [],
    "MORE_STATEMENTS": [],
}
_SCALE_OUT = {
    "GENEVE_PORT": ["${GenevePort}"],
    "GENEVE_VALUE": ['GenevePort: !If [IsGateway, 6081, "off"]'],
    "METRICS_ADDRESS": ["0.0.0.0:9478"],
    "METRICS_VALUE": [],
    "SIGNAL_RESOURCE": ["Group"],
    "GROUP_NAME": ["${AWS::StackName}-vxsniff"],
    "HOOK_NAME": ["vxsniff-drain"],
    "SECURITY_GROUPS": ["SecurityGroupIds: [!GetAtt SecurityGroup.GroupId]"],
    "MORE_STATEMENTS": (HERE / "pieces/group-statements.yaml").read_text().splitlines(),
}
TEMPLATES = {
    "single.yaml": (("single-head", "common", "single", "mirror"), _SINGLE),
    "scale-out.yaml": (("scale-out-head", "common", "scale-out", "mirror"), _SCALE_OUT),
}
"""The pieces of each, and what stands in them for `@NAME@`: lines, at the indentation of the mark."""
APP_PORTS_MOST = 5
APP_PORTS_MOST_WITH_IPV6 = 2
"""A mirror filter has ten rules at most; a port needs one for each direction and family."""
SECTIONS = ("Metadata", "Parameters", "Rules", "Conditions", "Resources", "Outputs")
TEMPLATE_LIMIT_BYTES = 51_200
"""Of a template that is not in a bucket (CloudFormation user guide, "quotas")."""
USER_DATA_LIMIT_BYTES = 16 * 1024
"""Of what an instance is given, before it is encoded (EC2 user guide, "user data")."""
_LIBEXEC = "/usr/local/libexec/vxsniff"
_UNITS = "/etc/systemd/system"
FILES = {
    f"{_LIBEXEC}/settings": (HERE / "scripts/settings.sh", "755"),
    f"{_LIBEXEC}/drain": (HERE / "scripts/drain.sh", "755"),
    f"{_LIBEXEC}/publish": (HERE / "scripts/publish.sh", "755"),
    "/etc/sysctl.d/60-vxsniff.conf": (SYSTEMD / "vxsniff-sysctl.conf", "644"),
    f"{_UNITS}/vxsniff.service": (SYSTEMD / "vxsniff.service", "644"),
    **{
        f"{_UNITS}/{path.name}": (path, "644")
        for path in sorted((HERE / "scripts").iterdir())
        if path.suffix in (".service", ".timer")
    },
}
"""Where on an instance a file goes, and its mode."""


def without_comments(text: str) -> str:
    """Comment lines and double blank lines left out: user data is short."""
    lines = [line for line in text.splitlines() if line.startswith("#!") or not re.match(r"\s*#", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip()) + "\n"


def user_data() -> str:
    """What runs at an instance's first start, less the variables that a template puts above it."""
    puts = "".join(
        f"put {target} {mode} <<'@EOF'\n{without_comments(path.read_text())}@EOF\n"
        for target, (path, mode) in FILES.items()
    )
    body = (HERE / "scripts/install.sh").read_text()
    before, marker, after = body.partition("# @files\n")
    assert marker
    return without_comments(before) + puts + without_comments(after)


def port_conditions() -> list[str]:
    ports = '!Split [",", !Sub ["${L},,,,", {L: !Join [",", !Ref AppPorts]}]]'
    return [
        *(f'HasPort{slot}: !Not [!Equals [!Select [{slot}, {ports}], ""]]' for slot in range(APP_PORTS_MOST)),
        *(
            f"HasPort{slot}Ipv6: !And [!Condition HasPort{slot}, !Condition MirrorsIpv6]"
            for slot in range(APP_PORTS_MOST_WITH_IPV6)
        ),
    ]


def filter_rules() -> list[str]:
    """Written out: what loops over a template (Fn::ForEach) can't number rules."""
    rule = (HERE / "pieces/rule.yaml").read_text()
    # The service takes IPv6 ranges, the schema that cfn-lint has does not.
    accepted = "  Metadata: {cfn-lint: {config: {ignore_checks: [E3002]}}}\n"
    return [
        line
        for family, anywhere, first, most, metadata in (
            ("", "0.0.0.0/0", 100, APP_PORTS_MOST, ""),
            ("Ipv6", "::/0", 200, APP_PORTS_MOST_WITH_IPV6, accepted),
        )
        for slot in range(most)
        for direction, port_range in (("ingress", "DestinationPortRange"), ("egress", "SourcePortRange"))
        for line in rule.format(
            direction=direction.title(),
            direction_word=direction,
            slot=slot,
            family=family,
            number=first + slot,
            anywhere=anywhere,
            port_range=port_range,
            metadata=metadata,
            port=f'!Select [{slot}, !Split [",", !Sub ["${{L}},0,0,0,0", {{L: !Join [",", !Ref AppPorts]}}]]]',
        ).splitlines()
    ]


def template(name: str, script: str) -> str:
    """A CloudFormation template: pieces joined section by section, and what their marks stand for put in."""
    pieces, values = TEMPLATES[name]
    head, *bodies = [(HERE / f"pieces/{piece}.yaml").read_text() for piece in pieces]
    sections: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for body in bodies:
        current: list[str] = []
        for line in body.splitlines():
            current = sections.get(line.removesuffix(":"), current)
            if line.removesuffix(":") not in sections:
                current.append(line)
    parts = [f"# Made by deploy/aws/build.py from deploy/aws/pieces and deploy/aws/scripts: change those.\n{head}"]
    for section, lines in sections.items():
        if lines:
            parts.append(f"{section}:\n" + "\n".join(lines).strip("\n") + "\n")
    values = values | {
        "PORT_CONDITIONS": port_conditions(),
        "RULES": filter_rules(),
        "USER_DATA": script.splitlines(),
    }
    filled = [line for row in "\n".join(parts).splitlines() for line in _filled(row, values)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(filled)) + "\n"


def _filled(row: str, values: dict[str, list[str]]) -> list[str]:
    """A line of a piece with its mark replaced: a line that is nothing else becomes as many as there are."""
    mark = re.search(r"@([A-Z_]+)@", row)
    if mark is None or mark[1] not in values:
        return [row]
    if row.strip() == mark[0]:
        indentation = row[: mark.start()]
        return [indentation + line if line.strip() else "" for line in values[mark[1]]]
    return [row.replace(mark[0], "".join(values[mark[1]]))]


def build() -> dict[str, str]:
    """Each made file's name and text."""
    script = user_data()
    return {"user-data.sh": script, **{name: template(name, script) for name in TEMPLATES}}


if __name__ == "__main__":
    for name, text in build().items():
        (HERE / name).write_text(text)
        print(f"{name}: {len(text):,} characters", file=sys.stderr)
