"""The CloudFormation templates and the Terraform modules: what they promise, and that they promise the same."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cfnlint.api import ManualArgs, lint
from cfnlint.decode import decode

from deploy.aws import build
from tests import hcl
from vxsniff.app import settings
from vxsniff.app.table import BY_VARIABLE

AWS = Path(build.__file__).parent
NAMES = ("single", "scale-out")
GIVEN = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetId": "subnet-0123456789abcdef0",
    "SourceSecurityGroupIds": "sg-0123456789abcdef0,sg-0123456789abcdef1",
    "SourceCidrs": "10.0.0.0/16,10.1.0.0/16",
    "MirrorSources": "eni-0123456789abcdef0:101,eni-0123456789abcdef1:102",
    "AppPorts": "80,8000-8010",
    "MirrorIpv6": "true",
    "EgressCidr": "10.0.0.0/8",
}


@pytest.fixture(params=NAMES)
def template(request):
    decoded, problems = decode(str(AWS / f"{request.param}.yaml"))
    assert not problems
    return json.loads(json.dumps(decoded))


@pytest.fixture
def scale_out():
    decoded, _ = decode(str(AWS / "scale-out.yaml"))
    return json.loads(json.dumps(decoded))


def resources(template, kind):
    """Those of a kind by name, the bodies of loops included."""
    found = {}
    for name, body in template["Resources"].items():
        if name.startswith("Fn::ForEach"):
            ((name, body),) = body[2].items()
        if body["Type"] == kind:
            found[name] = body["Properties"]
    return found


def walk(value):
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(part)


def references(value):
    """Names in Ref, Sub and GetAtt."""
    for part in walk(value):
        if isinstance(part, dict) and len(part) == 1:
            ((function, argument),) = part.items()
            if function == "Ref":
                yield argument
            elif function == "Fn::GetAtt":
                yield argument[0] if isinstance(argument, list) else argument.partition(".")[0]
            elif function == "Fn::Sub":
                yield from re.findall(r"\$\{([A-Za-z0-9:]+)", argument if isinstance(argument, str) else argument[0])


# ---- CloudFormation


def test_what_is_made_is_up_to_date():
    for name, text in build.build().items():
        assert (AWS / name).read_text() == text, f"{name}: run python deploy/aws/build.py"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [{}, GIVEN], ids=["defaults", "given"])
def test_the_linter_finds_nothing(name, given):
    text = (AWS / f"{name}.yaml").read_text()
    parameters = set(re.findall(r"^  ([A-Z]\w+):$", text.partition("\nConditions:")[0], re.MULTILINE))
    chosen = {key: value for key, value in given.items() if key in parameters}
    found = lint(text, config=ManualArgs(parameters=[chosen], regions=["us-east-1", "eu-central-1"]))
    assert [f"{match.rule.id} {match.message}" for match in found] == []


def test_the_linter_would_find_something():
    text = (AWS / "single.yaml").read_text().replace("Protocol: 6", "Protocol: tcp")
    assert lint(text, config=ManualArgs(regions=["us-east-1"]))


@pytest.mark.parametrize("name", NAMES)
def test_templates_and_user_data_fit_without_a_bucket(name):
    assert len((AWS / f"{name}.yaml").read_bytes()) < build.TEMPLATE_LIMIT_BYTES
    assert len(build.user_data().encode()) + 2048 < build.USER_DATA_LIMIT_BYTES  # and the variables above it


def test_every_parameter_has_a_description_and_is_used(template):
    used = set(references([template["Conditions"], template["Resources"], template["Outputs"]]))
    for name, parameter in template["Parameters"].items():
        assert len(parameter["Description"]) > 10, name
        assert name in used, name


def test_every_condition_is_used(template):
    text = json.dumps([template["Resources"], template["Conditions"]])
    for name in template["Conditions"]:
        assert re.search(rf'"(Condition|Fn::If)": \[?\s*"{name}"', text), name


def test_no_action_is_a_wildcard_and_no_resource_but_where_an_action_has_none(template):
    (role,) = resources(template, "AWS::IAM::Role").values()
    statements = [part for part in walk(role["Policies"]) if isinstance(part, dict) and "Effect" in part]
    assert len(statements) >= 7
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert all("*" not in action for action in actions)
        if statement["Resource"] == "*":
            assert actions == ["ecr:GetAuthorizationToken"] or statement["Condition"] == {
                "StringEquals": {"cloudwatch:namespace": "vxsniff"}
            }


def test_no_security_group_is_open_by_default_and_the_mirror_comes_in_on_its_port(template):
    group = resources(template, "AWS::EC2::SecurityGroup")["SecurityGroup"]
    apart = resources(template, "AWS::EC2::SecurityGroupIngress")
    inside = [part for part in walk(group) if isinstance(part, dict) and "IpProtocol" in part]
    for rule in [*inside, *apart.values()]:
        assert "CidrIp" in rule or "SourceSecurityGroupId" in rule
        assert isinstance(rule.get("CidrIp", {}), dict), "a range of addresses is a parameter"
    for name in ("MetricsCidr", "EgressCidr", "SourceCidrs", "BalancerCidr"):
        assert template["Parameters"].get(name, {}).get("Default", "") == ""
    mirrored = [rule for name, rule in apart.items() if name.startswith(("FromGroup", "FromCidr"))]
    assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in mirrored} == {("udp", 4789, 4789)}


def test_volumes_are_encrypted_and_metadata_needs_a_token(template):
    data = resources(template, "AWS::EC2::LaunchTemplate")["LaunchTemplate"]["LaunchTemplateData"]
    assert [volume["Ebs"]["Encrypted"] for volume in data["BlockDeviceMappings"]] == [True]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert not any("PublicIp" in str(part) for part in data)


def test_both_directions_of_each_port_are_mirrored_under_numbers_of_their_own(template):
    rules = resources(template, "AWS::EC2::TrafficMirrorFilterRule").values()
    by_direction = {
        direction: [rule for rule in rules if rule["TrafficDirection"] == direction]
        for direction in ("ingress", "egress")
    }
    for direction, place in (("ingress", "DestinationPortRange"), ("egress", "SourcePortRange")):
        found = by_direction[direction]
        numbers = [rule["RuleNumber"] for rule in found]
        assert len(found) == len(set(numbers)) == build.APP_PORTS_MOST + build.APP_PORTS_MOST_WITH_IPV6
        assert all(place in rule and rule["Protocol"] == 6 and rule["RuleAction"] == "accept" for rule in found)
        assert all(rule["SourceCidrBlock"] == rule["DestinationCidrBlock"] for rule in found)  # of one family
    # The quota is ten rules: five ports, or three with IPv6 of two of them.
    assert 2 * build.APP_PORTS_MOST == 10
    assert 2 * 3 + 2 * build.APP_PORTS_MOST_WITH_IPV6 == 10


def test_the_network_balancer_keeps_flows_together_and_asks_for_health(scale_out):
    targets = resources(scale_out, "AWS::ElasticLoadBalancingV2::TargetGroup")
    listeners = resources(scale_out, "AWS::ElasticLoadBalancingV2::Listener")
    attributes = {
        row["Key"]: row["Value"] for row in targets["NetworkTargets"]["TargetGroupAttributes"] if "Key" in row
    }
    sticky = next(row["Fn::If"][1] for row in targets["NetworkTargets"]["TargetGroupAttributes"] if "Fn::If" in row)
    assert sticky == {"Key": "stickiness.type", "Value": {"Ref": "Stickiness"}}
    assert scale_out["Parameters"]["Stickiness"]["Default"] == "source_ip"
    assert attributes["stickiness.enabled"] == {"Fn::If": ["IsSticky", "true", "false"]}
    assert (listeners["NetworkListener"]["Protocol"], listeners["NetworkListener"]["Port"]) == ("UDP", 4789)
    for name, protocol, port in (("NetworkTargets", "UDP", 4789), ("GatewayTargets", "GENEVE", 6081)):
        group = targets[name]
        assert (group["Protocol"], group["Port"]) == (protocol, port)
        assert (group["HealthCheckProtocol"], group["HealthCheckPort"], group["HealthCheckPath"]) == (
            "HTTP",
            "9478",
            "/healthz",
        )
    gateway = {row["Key"]: row["Value"] for row in targets["GatewayTargets"]["TargetGroupAttributes"]}
    assert gateway["stickiness.type"] == "source_ip_dest_ip"
    for balancer in resources(scale_out, "AWS::ElasticLoadBalancingV2::LoadBalancer").values():
        assert {"Key": "load_balancing.cross_zone.enabled", "Value": "true"} in balancer["LoadBalancerAttributes"]


def test_an_instance_that_goes_drains_first_and_the_group_grows_by_its_own_loss(scale_out):
    (group,) = resources(scale_out, "AWS::AutoScaling::AutoScalingGroup").values()
    (hook,) = group["LifecycleHookSpecificationList"]
    assert hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    script = build.user_data()
    assert int(hook["HeartbeatTimeout"]) > 2 * 30  # drain.sh sends one every 30 s
    assert "second % 30 == 0" in script
    assert "AutoScalingInstanceRefresh" in scale_out["Resources"]["Group"]["UpdatePolicy"]
    (alarm,) = resources(scale_out, "AWS::CloudWatch::Alarm").values()
    assert (alarm["Namespace"], alarm["MetricName"]) == ("vxsniff", "ReceiveLossPercent")
    assert "ReceiveLossPercent Percent" in script
    kinds = {policy["PolicyType"] for policy in resources(scale_out, "AWS::AutoScaling::ScalingPolicy").values()}
    assert kinds == {"TargetTrackingScaling", "StepScaling"}


def test_the_settings_that_the_template_makes_are_settings(template):
    text, values = resources(template, "AWS::SSM::Parameter")["Settings"]["Value"]["Fn::Sub"]
    lines = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    assert set(lines) <= set(BY_VARIABLE)
    assert set(values) <= set(re.findall(r"\$\{(\w+)\}", text))
    filled = {"Vnis": "", "Sources": "101,102", "Ports": "80,8000-8010", "MetricsHost": "0.0.0.0", "GenevePort": "6081"}
    environ = {name: re.sub(r"\$\{(\w+)\}", lambda m: filled[m[1]], value) for name, value in lines.items()}
    chosen = settings.resolve({}, environ, {})
    assert chosen.engine == "vxlan"
    assert chosen.vnis.describe() == "101, 102"
    assert chosen.metrics.host == "0.0.0.0"


# ---- Terraform


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def module(name):
    return hcl.read(*sorted((AWS / "terraform" / name).glob("*.tf")))


@pytest.mark.parametrize("name", NAMES)
def test_terraform_has_the_same_parameters_with_the_same_defaults(name):
    decoded, _ = decode(str(AWS / f"{name}.yaml"))
    variables = hcl.by_name(module(name)["variable"])
    assert set(variables) == {snake(parameter) for parameter in decoded["Parameters"]} | {"name"}
    for parameter, body in decoded["Parameters"].items():
        variable = variables[snake(parameter)]
        assert ("default" in variable) == ("Default" in body), parameter
        if "Default" in body:
            default = variable["default"]
            if isinstance(default, list):
                default = ",".join(default)
            assert str(default).lower().removesuffix(".0") == str(body["Default"]).lower(), parameter
        if "AllowedValues" in body and variable["type"] != "bool":
            assert all(value in json.dumps(variable["validation"]) for value in body["AllowedValues"])


@pytest.mark.parametrize("name", ["machine", "mirror", *NAMES])
def test_terraform_uses_every_variable_and_none_that_is_not_there(name):
    text = "\n".join(path.read_text() for path in sorted((AWS / "terraform" / name).glob("*.tf")))
    found = module(name)
    declared = set(hcl.by_name(found["variable"]))
    bodies = re.sub(r'variable "\w+" \{.*?\n\}\n', "", text, flags=re.DOTALL)
    assert set(re.findall(r"\bvar\.(\w+)", bodies)) == declared
    local_names = {key for block in found.get("locals", []) for key in block}
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local_names


@pytest.mark.parametrize("name", NAMES)
def test_terraform_modules_are_given_what_they_ask_for_and_give_what_is_asked(name):
    text = "\n".join(path.read_text() for path in sorted((AWS / "terraform" / name).glob("*.tf")))
    for child, body in hcl.by_name(module(name)["module"]).items():
        assert set(body) - {"source"} == set(hcl.by_name(module(child)["variable"]))
        outputs = set(hcl.by_name(module(child)["output"]))
        assert set(re.findall(rf"\bmodule\.{child}\.(\w+)", text)) <= outputs


def test_terraform_and_cloudformation_make_the_same_things(scale_out):
    """By kind: what a template has one of, a module has, too."""
    same = {
        "AWS::EC2::LaunchTemplate": "aws_launch_template",
        "AWS::EC2::TrafficMirrorFilter": "aws_ec2_traffic_mirror_filter",
        "AWS::EC2::TrafficMirrorFilterRule": "aws_ec2_traffic_mirror_filter_rule",
        "AWS::EC2::TrafficMirrorSession": "aws_ec2_traffic_mirror_session",
        "AWS::EC2::TrafficMirrorTarget": "aws_ec2_traffic_mirror_target",
        "AWS::EC2::SecurityGroup": "aws_security_group",
        "AWS::EC2::SecurityGroupIngress": "aws_vpc_security_group_ingress_rule",
        "AWS::EC2::VPCEndpoint": "aws_vpc_endpoint",
        "AWS::EC2::VPCEndpointService": "aws_vpc_endpoint_service",
        "AWS::IAM::Role": "aws_iam_role",
        "AWS::IAM::InstanceProfile": "aws_iam_instance_profile",
        "AWS::SSM::Parameter": "aws_ssm_parameter",
        "AWS::AutoScaling::AutoScalingGroup": "aws_autoscaling_group",
        "AWS::AutoScaling::ScalingPolicy": "aws_autoscaling_policy",
        "AWS::CloudWatch::Alarm": "aws_cloudwatch_metric_alarm",
        "AWS::ElasticLoadBalancingV2::LoadBalancer": "aws_lb",
        "AWS::ElasticLoadBalancingV2::Listener": "aws_lb_listener",
        "AWS::ElasticLoadBalancingV2::TargetGroup": "aws_lb_target_group",
    }
    kinds = {kind for name in ("machine", "mirror", "scale-out") for kind in hcl.by_name(module(name)["resource"])}
    bodies = [b[2] if n.startswith("Fn::ForEach") else {n: b} for n, b in scale_out["Resources"].items()]
    assert {same[part["Type"]] for body in bodies for part in body.values()} <= kinds


def test_terraform_closes_what_the_template_closes():
    text = (AWS / "terraform/machine/main.tf").read_text() + (AWS / "terraform/scale-out/main.tf").read_text()
    assert 'http_tokens                 = "required"' in text
    assert re.search(r"encrypted\s+= true", text)
    assert "0.0.0.0/0" not in text
    assert not re.search(r'Action\s+= \[?"\*', text)


def test_both_run_the_same_script_with_the_same_variables(scale_out):
    data = resources(scale_out, "AWS::EC2::LaunchTemplate")["LaunchTemplate"]["LaunchTemplateData"]
    header, script = data["UserData"]["Fn::Base64"]["Fn::Join"][1]
    assert script == build.user_data()
    text = (AWS / "terraform/machine/main.tf").read_text()
    assert 'file("${path.module}/../../user-data.sh")' in text
    names = re.findall(r"^([A-Z_]+)=", header["Fn::Sub"], re.MULTILINE)
    assert re.findall(r"^    ([A-Z_]+)='", text.partition("user_data")[2], re.MULTILINE) == names


def test_the_script_is_made_of_valid_shell():
    for text in (build.user_data(), *(path.read_text() for path in (AWS / "scripts").glob("*.sh"))):
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert done.stderr == ""
