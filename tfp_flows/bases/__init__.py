"""Base distributions of flows: normal, mixtures, heavy tails and uniform angles."""

from tfp_flows.bases.fast_normal import log_prob_of as log_prob_of
from tfp_flows.bases.mixture import GaussianMixture
from tfp_flows.bases.multivariate_student_t import MultivariateStudentT
from tfp_flows.bases.multivariate_student_t import fit_student_t as fit_student_t
from tfp_flows.bases.named import make_base as make_base
from tfp_flows.bases.student_t import StudentT
from tfp_flows.bases.uniform_angles import UniformAngles

__all__ = ["GaussianMixture", "MultivariateStudentT", "StudentT", "UniformAngles"]
