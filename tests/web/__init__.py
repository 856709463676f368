"""Tests of the page, asked as a browser asks it."""
