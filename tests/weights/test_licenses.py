"""Licenses of trained weights, as timm records them."""

import pytest
import timm

from botvision.weights.licenses import license_restriction


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnextv2_atto.fcmae", "cc-by-nc-4.0"),
        ("timm/convnextv2_atto.fcmae", "cc-by-nc-4.0"),
        ("resnet50.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0"),
        ("regnety_2560.seer_ft_in1k", "seer-license"),
        ("vit_large_patch14_clip_224.apple_mclip2_dfndr2b", "apple-amlr"),
        ("resnet50.a1_in1k", None),
        ("resnet50.tv_in1k", None),
        ("timm/botnet26t_256.c1_in1k", None),
        ("botnet50", None),
        ("cc-by-nc-4.0.safetensors", None),
    ],
)
def test_restrictions(name, expected):
    note = None if expected is None else f"license {expected}, which allows no commercial use"
    assert license_restriction(name) == note


def test_no_license_of_timm_for_research_alone_is_missed():
    licenses = {
        timm.get_pretrained_cfg(name).license: name for name in timm.list_models(pretrained=True)
    }
    named = {each for each in licenses if each and ("-nc" in each or "research" in each)}
    assert named
    assert all(license_restriction(licenses[each]) for each in named)
